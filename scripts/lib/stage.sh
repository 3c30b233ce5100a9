# shellcheck shell=bash
# Sourced by install and build-deb after setup.sh: puts davfs below a folder as it will lie on the machine.
#
#   stage DESTDIR LIB BIN SHARE UNITS HELPERS
#
# LIB gets the Python environment (only what runs, from requirements-run.lock), BIN the command, SHARE the manual
# pages and completions, UNITS/system and UNITS/user the units, HELPERS those of mount(8) ("" for none): absolute
# paths on the machine, written below DESTDIR ("" for the machine itself). Nothing that is written holds DESTDIR.
# STAGE_PYTHON names the interpreter; it must be of the same version as the one of .venv.

launcher() { # FILE LIB MODULE FUNCTION
    mkdir -p "$(dirname "$1")"
    rm -f "$1"
    printf '#!%s/bin/python3 -I\nimport sys\n\nfrom %s import %s\n\nsys.exit(%s())\n' "$2" "$3" "$4" "$4" >"$1"
    chmod 755 "$1"
}

python_version() { "$1" -c 'import sys; print(*sys.version_info[:2], sep=".")'; }

wheels() { # builds what runs, once for each state of the lock file; sets WHEELS
    WHEELS="$VENV/wheels-$(sha256sum <"$REPO/requirements-run.lock" | cut -c1-16)"
    [ ! -e "$WHEELS/complete" ] || return 0
    rm -rf "$VENV"/wheels-*
    say "building what davfs needs (once)"
    "$VENV/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-input --retries 5 \
        --no-build-isolation --require-hashes --wheel-dir "$WHEELS" -r "$REPO/requirements-run.lock" >&2 &&
        touch "$WHEELS/complete"
}

stage_python() { # DESTDIR LIB
    local into="$1$2" python own
    python="${STAGE_PYTHON:-$("$VENV/bin/python" -c 'import sys; print(sys._base_executable)')}"
    if [ "$(python_version "$python")" != "$(python_version "$VENV/bin/python")" ]; then
        say "$python is not of the version that .venv has: set DAVFS_PYTHON=$python and remove .venv"
        return 1
    fi
    wheels || return
    own="$(mktemp -d)"
    cp -r "$REPO/davfs" "$REPO/pyproject.toml" "$REPO/README.md" "$REPO/LICENSE" "$own" # setuptools writes beside its sources
    rm -rf "$into"
    mkdir -p "$into"
    "$python" -m venv --without-pip --symlinks "$into" &&
        "$VENV/bin/python" -m pip wheel --quiet --disable-pip-version-check --no-build-isolation --no-deps \
            --wheel-dir "$own/wheel" "$own" >&2 &&
        "$VENV/bin/python" -m pip --python "$into/bin/python3" install --quiet --disable-pip-version-check \
            --no-index --no-deps --no-compile --no-warn-script-location \
            "$WHEELS"/*.whl "$own/wheel"/davfs-*.whl >&2 || return
    rm -rf "$own"
    find "$into/bin" -type f -delete # pip's commands name DESTDIR; ours are written by launcher
    printf 'home = %s\ninclude-system-site-packages = false\nversion = %s\n' \
        "$(dirname "$(readlink -f "$python")")" "$(python_version "$python")" >"$into/pyvenv.cfg"
}

stage_texts() { # DESTDIR SHARE
    local made into="$1$2"
    made="$(mktemp -d)"
    "$VENV/bin/python" "$REPO/scripts/lib/extras.py" "$made" || return
    install -Dm644 "$made/davfs.1" "$into/man/man1/davfs.1"
    install -Dm644 "$made/davfs.toml.5" "$into/man/man5/davfs.toml.5"
    install -Dm644 "$made/davfs" "$into/bash-completion/completions/davfs"
    install -Dm644 "$made/_davfs" "$into/zsh/site-functions/_davfs"
    install -Dm644 "$made/davfs.fish" "$into/fish/vendor_completions.d/davfs.fish"
    rm -rf "$made"
}

stage_units() { # DESTDIR BIN UNITS
    mkdir -p "$1$3/system" "$1$3/user"
    sed "s#^ExecStart=/usr/bin/davfs#ExecStart=$2/davfs#" "$REPO/systemd/davfs@.service" >"$1$3/system/davfs@.service"
    sed "s#^ExecStart=davfs#ExecStart=$2/davfs#" "$REPO/systemd/davfs-user@.service" >"$1$3/user/davfs-user@.service"
    chmod 644 "$1$3/system/davfs@.service" "$1$3/user/davfs-user@.service"
}

stage() { # DESTDIR LIB BIN SHARE UNITS HELPERS
    stage_python "$1" "$2" || return
    launcher "$1$3/davfs" "$2" davfs.cli main
    stage_texts "$1" "$4" || return
    stage_units "$1" "$3" "$5"
    [ -n "$6" ] || return 0
    launcher "$1$6/mount.fuse.davfs" "$2" davfs.commands.mount8 mount_helper
    launcher "$1$6/umount.fuse.davfs" "$2" davfs.commands.mount8 umount_helper
}

staged_files() { # LIB BIN SHARE UNITS HELPERS: what stage writes beside LIB
    printf '%s\n' "$2/davfs" "$3/man/man1/davfs.1" "$3/man/man5/davfs.toml.5" \
        "$3/bash-completion/completions/davfs" "$3/zsh/site-functions/_davfs" "$3/fish/vendor_completions.d/davfs.fish" \
        "$4/system/davfs@.service" "$4/user/davfs-user@.service"
    [ -z "$5" ] || printf '%s\n' "$5/mount.fuse.davfs" "$5/umount.fuse.davfs"
}
