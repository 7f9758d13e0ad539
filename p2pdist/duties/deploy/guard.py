"""What starts the agent on a machine: a program of a plain shell, outside of the file that it watches.

A version that cannot start, or hangs, cannot go back to the one before by itself. The guard stays for as long
as the agent runs, and does what :mod:`p2pdist.install.trial` says. With the unit of systemd as with a script
in ``/etc/init.d``: neither can know when to go back, and the latter starts nothing again.
"""

GUARD = """\
#!/bin/sh
# p2pdist-agent-guard PLACE ARGUMENT...: runs the agent that the link PLACE/p2pdist-agent names.
#
# When the link names another version after the agent has ended, that one is run. While PLACE/trial is
# there, its version is on trial. Whoever ends the trial takes the file away: the agent once the admin
# server has heard of it; the guard when it has ended too often, or has run for too long, before. Then the
# version before is run again. Only time in which it runs counts, and no end that was asked for, or that
# came with the machine's.
umask 077
unset WATCHDOG_PID # the agent gives the signs of life that are expected of this process
place=$1
shift
link=$place/p2pdist-agent
boot_now=$(cat /proc/sys/kernel/random/boot_id)
alone=$(command -v setsid) # a process group of its own, so that all of it can be ended
child='' asked='' code=''

stop() {
    asked=yes
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap stop TERM INT HUP

number() {
    case $1 in '' | *[!0-9]* | ??????????*) echo "$2" ;; *) echo "$1" ;; esac
}

read_lines() { # FILE: of its key=value lines those that are known
    [ -e "$1" ] || return 0
    while IFS='=' read -r key value; do
        case $key in new | old | seconds | starts | pause | ended | ran | boot) eval "$key=\\$value" ;; esac
    done <"$1"
}

write_count() { # BOOT: in which the version runs now, or nothing
    printf 'ended=%s\\nran=%s\\nboot=%s\\n' "$ended" "$ran" "$1" >"$place/trial.count.new" &&
        mv -f "$place/trial.count.new" "$place/trial.count"
}

give_up() { # REASON. Fails where the agent was faster: then it stays.
    printf '%s\\n' "$1" >"$place/trial.reason"
    mv "$place/trial" "$place/trial.failed" 2>/dev/null || return 1
    given_up=yes
    echo "p2pdist-agent-guard: $program is given up: $1" >&2
}

choose() { # which version is to be run, and whether it is on trial
    new='' old='' seconds='' starts='' pause='' ended='' ran='' boot='' trial='' given_up=''
    named=$(readlink "$link")
    program=$named
    read_lines "$place/trial.failed"
    if [ -n "$new" ] && [ "$program" = "$new" ]; then
        program=$old
        ln -sfn "$old" "$link.new" && mv -f "$link.new" "$link" && named=$old
    fi
    case $program in /*) ;; *) program=$place/$program ;; esac
    new=''
    read_lines "$place/trial"
    [ -n "$new" ] && [ "$program" = "$new" ] || return 0
    trial=yes
    read_lines "$place/trial.count"
    seconds=$(number "$seconds" 300) starts=$(number "$starts" 3) pause=$(number "$pause" 5)
    ended=$(number "$ended" 0) ran=$(number "$ran" 0)
    if [ -n "$boot" ] && [ "$boot" = "$boot_now" ]; then # it was ended together with its guard
        ended=$((ended + 1))
        code=137
    fi
}

start() {
    [ -z "${TMPDIR:-}" ] || rm -rf "$TMPDIR"/_MEI* # what a killed one has unpacked
    P2PDIST_GUARDED=$program $alone "$program" "$@" &
    child=$!
    [ -z "$asked" ] || stop
}

await() { # its end, however often a signal comes meanwhile
    while :; do
        wait "$child"
        code=$?
        kill -0 "$child" 2>/dev/null || break
    done
    child=''
}

end_it() {
    kill -TERM "$child" 2>/dev/null
    left=$((pause * 4))
    while [ "$left" -gt 0 ] && kill -0 "$child" 2>/dev/null; do
        sleep 1
        left=$((left - 1))
    done
    kill -KILL "-$child" 2>/dev/null || kill -KILL "$child" 2>/dev/null
    await
}

watch() { # until it has ended, its trial is over, or it is given up
    while [ -z "$asked" ] && kill -0 "$child" 2>/dev/null && [ -e "$place/trial" ]; do
        if [ "$ran" -ge "$seconds" ] && give_up "it ran for $ran s, and the admin server did not hear of it"
        then
            end_it
            return
        fi
        sleep 1
        ran=$((ran + 1))
        [ $((ran % 10)) -ne 0 ] || write_count "$boot_now"
    done
    await
}

ending() {
    case $code in
        '') echo "unseen" ;;
        12[89] | 1[3-9]? | 2??) echo "by signal $((code - 128))" ;;
        *) echo "with exit code $code" ;;
    esac
}

while [ -z "$asked" ]; do
    choose
    if [ -z "$trial" ]; then
        start "$@"
        await
    elif [ "$ended" -ge "$starts" ]; then
        give_up "it ended $ended times before the admin server heard of it, the last time $(ending)"
        continue
    else
        write_count "$boot_now"
        start "$@"
        watch
        if [ -n "$asked" ]; then
            write_count ''
        elif [ -e "$place/trial" ]; then
            ended=$((ended + 1))
            write_count '' || give_up "it ended, $(ending), and nothing could be written down"
            while [ -z "$asked" ] && [ "$pause" -gt 0 ] && [ "$ended" -lt "$starts" ]; do
                sleep 1
                pause=$((pause - 1))
            done
            continue
        fi
    fi
    [ -n "$given_up" ] || [ "$(readlink "$link")" != "$named" ] || break
done
[ -z "$asked" ] || exit 0
exit "$code"
"""
