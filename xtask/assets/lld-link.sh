#!/bin/sh
# lld-link, without the switches that it does not know (/KERNEL, /MAPINFO, and /RELEASE, whose checksum is written
# afterwards) or that an unsigned test image does not want (/INTEGRITYCHECK).
for argument do
    shift
    case "$argument" in
        /KERNEL | /MAPINFO:EXPORTS | /RELEASE | /INTEGRITYCHECK) ;;
        *) set -- "$@" "$argument" ;;
    esac
done
exec lld-link-real "$@"
