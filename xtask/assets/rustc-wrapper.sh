#!/bin/sh
# rustc behind cargo (RUSTC_WRAPPER). Cargo tells crates apart by a hash that depends on the directories they are in, and the
# hash is part of every symbol, by which functions are ordered. Crates of the driver are told apart by name and version.
rustc=$1
shift
case " $* " in
    *" --target x86_64-pc-windows-msvc "*)
        for argument do
            shift
            case "$argument" in
                metadata=*) argument="metadata=$CARGO_PKG_NAME-$CARGO_PKG_VERSION" ;;
            esac
            set -- "$@" "$argument"
        done
        ;;
esac
exec "$rustc" "$@"
