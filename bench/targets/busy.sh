#!/bin/sh
# Short-lived processes for bench/collapse.py: forks, execs, mappings. Usage: busy.sh SECONDS
end=$(($(date +%s) + $1))
while [ "$(date +%s)" -lt "$end" ]; do
    ls -lR /usr/lib/python3 2>/dev/null | sort | tail -n 1 >/dev/null
    find /usr/share/doc -name 'copyright' -size +1k | head -n 200 | xargs cat | gzip -1 | sha256sum >/dev/null
done
