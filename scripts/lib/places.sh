# shellcheck shell=bash
# Sourced by install and uninstall: where davfs goes. Sets LIB BIN SHARE UNITS HELPERS.
if [ "$(id -u)" = 0 ]; then
    LIB=/usr/local/lib/davfs BIN=/usr/local/bin SHARE=/usr/local/share UNITS=/usr/local/lib/systemd HELPERS=/usr/sbin
else
    LIB="$HOME/.local/lib/davfs" BIN="$HOME/.local/bin" SHARE="${XDG_DATA_HOME:-$HOME/.local/share}" HELPERS=""
    UNITS="${XDG_DATA_HOME:-$HOME/.local/share}/systemd"
fi
