#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# GDB 18 under MI: gdb.execute(COMMAND, to_string=True) returns stream records of MI, not the text of the command.
#
# A Python script of GDB that reads the output of `info ...` or `monitor ...` gets ~"...\n" or @"...\n", quoted for a
# front end, once VS Code or CLion runs that GDB. In a terminal the same script gets plain text, and so it does under MI
# with GDB 13.1 and 16.3. What a script parses out of such a string, registers or symbols, it no longer finds.
# Seen with GDB 18.1; not with 13.1 and 16.3.
# What helps: gdb.execute('interpreter-exec console "COMMAND"', to_string=True) is plain text everywhere.
. "$(dirname "$0")/common.sh"

for suite in trixie sid; do
    system $suite qemu gdb
    guest $suite -S
    cat >"$work/tmp/mi" <<'EOF'
-target-select remote stub
python print("PLAIN" + ascii(gdb.execute("monitor info status", to_string=True)))
python print("HERE" + ascii(gdb.execute("info line", to_string=True)))
python print("CONSOLE" + ascii(gdb.execute("interpreter-exec console \"monitor info status\"", to_string=True)))
-interpreter-exec console kill
-gdb-exit
EOF
    inside $suite gdb -nx -q --interpreter=mi2 <"$work/tmp/mi" >"$work/tmp/$suite.mi" 2>&1
    ended
done

# answer SUITE WORD: the string that was printed behind this word, out of MI's quotes.
answer() {
    sed -n "s/^~\"$2'\\(.*\\)'\\\\n\"\$/\\1/p" "$work/tmp/$1.mi"
}

status='VM status: paused (prelaunch)\\r\\n'
seen "GDB 16.3, MI, monitor as a string" "$status" "$(answer trixie PLAIN)"
seen "GDB 16.3, MI, info line as a string" 'No line number information available.\\n' "$(answer trixie HERE)"
seen "GDB 18.1, MI, monitor as a string" '@\"VM status: paused (prelaunch)\\\\r\\\\n\"\\n' "$(answer sid PLAIN)"
seen "GDB 18.1, MI, info line as a string" '~\"No line number information available.\\\\n\"\\n' "$(answer sid HERE)"
seen "GDB 16.3, MI, by interpreter-exec" "$status" "$(answer trixie CONSOLE)"
seen "GDB 18.1, MI, by interpreter-exec" "$status" "$(answer sid CONSOLE)"
finish
