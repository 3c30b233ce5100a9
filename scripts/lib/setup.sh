# shellcheck shell=bash
# Sourced by the scripts beside it: brings a fresh clone to the point where .venv/bin/davfs runs.
#
#   setup                 Debian packages, .venv, the locked requirements, davfs itself (editable)
#   setup_test_packages   the servers and programs that only the tests use
#   fuse_device_works     may this user open /dev/fuse?
#
# Owns: .venv. A stamp in it makes the second run a matter of milliseconds. Two runs at once wait for
# each other. Installs Debian packages only as root or with passwordless sudo; otherwise says what to
# install and ends with status 3. DAVFS_PYTHON chooses the interpreter.

REPO="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)"
VENV="$REPO/.venv"
# Only the absence of a system part may end a script with this status.
readonly STATUS_PACKAGES_MISSING=3

# /usr/sbin holds the servers and is not on every user's PATH.
export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

say() { printf 'davfs: %s\n' "$*" >&2; }

# --- Debian packages ------------------------------------------------------------------------------

# Each line: a package, and the command or file that shows it is there. Not dpkg-query: on another
# distribution, or with a part built by hand, what counts is that the part is there.
readonly BUILD_PARTS="
fuse3 fusermount3
pkg-config pkg-config
gcc gcc
libc6-dev /usr/include/stdlib.h
"
readonly TEST_PARTS="
apache2-bin apache2
nginx nginx
libnginx-mod-http-dav-ext /usr/lib/nginx/modules/ngx_http_dav_ext_module.so
libapache2-mod-auth-gssapi /usr/lib/apache2/modules/mod_auth_gssapi.so
gss-ntlmssp /usr/lib/*/gssntlmssp/gssntlmssp.so
lighttpd lighttpd
lighttpd-mod-webdav /usr/lib/lighttpd/mod_webdav.so
openssl openssl
php-fpm /usr/sbin/php-fpm[0-9]*
php-sabre-dav /usr/share/php/Sabre/autoload.php
php-sqlite3 /usr/lib/php/*/pdo_sqlite.so
attr getfattr
fio fio
git git
libglib2.0-bin gio
make make
rsync rsync
sqlite3 sqlite3
systemd /lib/systemd/systemd
vim-tiny vim.tiny
"

missing_packages() { # the packages of a table whose part is not here
    local package part
    while read -r package part; do
        [ -n "$package" ] || continue
        case "$part" in
            /*) compgen -G "$part" >/dev/null || echo "$package" ;; # a path, or a pattern where it holds a version
            *) command -v "$part" >/dev/null || echo "$package" ;;
        esac
    done <<<"$1"
}

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null || return 1
    [ "$(id -u)" = 0 ] || sudo -n true 2>/dev/null
}

# A freshly installed web server must not start as a service: only our tests asked for it.
# policy-rc.d is Debian's way to say so; one that is there already is somebody else's decision.
with_services_held() {
    local policy=/usr/sbin/policy-rc.d status=0
    if [ -e "$policy" ]; then
        "$@"
        return
    fi
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    # A subshell, so that an interrupt still takes the policy away.
    (
        trap 'as_root rm -f "$policy"' EXIT
        "$@"
    ) || status=$?
    return "$status"
}

apt_install() {
    local attempt
    for attempt in 1 2 3; do
        if as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null >&2 &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y install \
                --no-install-recommends --no-upgrade \
                -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3 "$@" </dev/null >&2; then
            return 0
        fi
        say "apt-get failed (attempt $attempt of 3)"
        sleep "$((attempt * 5))"
    done
    return 1
}

server_units() { # the units of servers that a package below may bring
    local file
    for file in /lib/systemd/system/{lighttpd,nginx,php*-fpm}.service; do
        [ ! -e "$file" ] || basename "$file"
    done
}

install_packages() {
    say "installing Debian packages: $*"
    local before unit
    before="$(server_units)"
    with_services_held apt_install "$@" || return 1
    [ -d /run/systemd/system ] || return 0
    # policy-rc.d holds the start now; the unit would still be enabled for the next boot.
    for unit in $(server_units); do
        grep -qxF "$unit" <<<"$before" || as_root systemctl disable "$unit" >/dev/null 2>&1 || true
    done
}

require_packages() {
    [ $# -gt 0 ] || return 0
    if ! may_install; then
        say "these parts of the system are missing, and this user may not install them."
        say "On Debian or Ubuntu:"
        say "    sudo apt-get install $*"
        return "$STATUS_PACKAGES_MISSING"
    fi
    install_packages "$@" || {
        say "apt-get could not install: $*"
        return "$STATUS_PACKAGES_MISSING"
    }
}

# --- Python ---------------------------------------------------------------------------------------

python_is_usable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() { # the first of these that is 3.11 or newer and can make a venv
    local candidate
    for candidate in ${DAVFS_PYTHON:-} python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if command -v "$candidate" >/dev/null && python_is_usable "$candidate"; then
            # A pyenv shim answers differently in another folder; take what it stands for.
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

has_headers() {
    "$1" -c 'import pathlib, sys, sysconfig
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())'
}

ensure_system() { # sets PYTHON
    local -a wanted
    mapfile -t wanted < <(missing_packages "$BUILD_PARTS")
    pkg-config --exists fuse3 2>/dev/null || wanted+=(libfuse3-dev)
    PYTHON="$(find_python)" || wanted+=(python3 python3-venv python3-dev)
    [ -z "$PYTHON" ] || has_headers "$PYTHON" || wanted+=(python3-dev)
    require_packages "${wanted[@]}" || return
    PYTHON="$(find_python)" || {
        say "no Python 3.11 or newer that can make a venv was found (DAVFS_PYTHON may name one)"
        return "$STATUS_PACKAGES_MISSING"
    }
}

stamp() { # what the installed state depends on
    printf '%s\n' "$REPO"
    cat "$REPO/requirements-build.lock" "$REPO/requirements.lock" "$REPO/pyproject.toml"
}

is_set_up() {
    [ -x "$VENV/bin/python" ] && [ -x "$VENV/bin/davfs" ] && [ -r "$VENV/davfs-stamp" ] &&
        command -v fusermount3 >/dev/null &&
        [ "$(stamp | sha256sum)" = "$(cat "$VENV/davfs-stamp")" ]
}

venv_fits() { # a .venv that is broken, or of another Python, is made again
    [ -x "$VENV/bin/python" ] && python_is_usable "$VENV/bin/python" && has_headers "$VENV/bin/python"
}

pip_install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --retries 5 "$@" >&2
}

# Build requirements come first and hash-checked, and builds then run without isolation: an isolated build
# fetches whatever is newest, unchecked. pyfuse3 is a source package that compiles against libfuse3.
install_locked() {
    pip_install --require-hashes -r "$REPO/requirements-build.lock" &&
        pip_install --require-hashes --no-build-isolation -r "$REPO/requirements.lock" &&
        pip_install --no-deps --no-build-isolation --editable "$REPO"
}

set_up_once() {
    local begin=$SECONDS
    ensure_system || return
    say "setting up $VENV with $("$PYTHON" --version) (once; about a minute)"
    venv_fits || "$PYTHON" -m venv --clear "$VENV" || return
    rm -f "$VENV/davfs-stamp"
    install_locked || {
        say "installing the Python packages failed; nothing was half-done that the next run does not repair"
        return 1
    }
    stamp | sha256sum >"$VENV/davfs-stamp"
    say "set up in $((SECONDS - begin)) s"
}

setup() {
    is_set_up && return 0
    # The lock is this very file, opened for reading: nothing to leave behind. It is dropped with the subshell.
    (
        command -v flock >/dev/null && flock 9
        is_set_up || set_up_once
    ) 9<"${BASH_SOURCE[0]}"
}

# --- for the tests --------------------------------------------------------------------------------

setup_test_packages() {
    local -a wanted
    mapfile -t wanted < <(missing_packages "$TEST_PARTS")
    require_packages "${wanted[@]}"
}

fuse_device_works() {
    if { : <>/dev/fuse; } 2>/dev/null; then
        return 0
    fi
    say "***********************************************************************"
    say "This user cannot open /dev/fuse: nothing can be mounted here."
    say "On a plain machine: modprobe fuse. In a container: run it with"
    say "--device /dev/fuse --cap-add SYS_ADMIN."
    say "***********************************************************************"
    return 1
}
