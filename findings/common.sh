# SPDX-License-Identifier: BSD-2-Clause
# shellcheck shell=bash
# What each finding shares: systems made of pinned Debian packages, small kernels, guests, GDB.
#
# Sourced, it starts the script again in namespaces of its own for mounts and processes, with all files on a tmpfs that
# only they see. So nothing is left on the machine, whatever ends the script. Only apt has a network; the tools run in a
# network namespace without one.
#
# FINDINGS_KEEP=DIRECTORY keeps the systems there for the next script; without it, each script starts from nothing.
#
# Exit status: 0 all is as described, 1 something has changed, 2 it can't be tried here.

set -u
export LC_ALL=C.UTF-8

# The versions that the findings were seen with.
declare -A pins=(
    [bookworm:qemu]=qemu-system-x86=1:7.2+dfsg-7+deb12u18+b3
    [bookworm:gdb]=gdb=13.1-3
    [bookworm:as]=binutils=2.40-2
    [bookworm:cc]=gcc-12=12.2.0-14+deb12u1
    [trixie:qemu]=qemu-system-x86=1:10.0.13+ds-0+deb13u1
    [trixie:gdb]=gdb=16.3-1
    [trixie:as]=binutils=2.44-3
    [sid:qemu]=qemu-system-x86=1:11.1.3+ds-1
    [sid:gdb]=gdb=18.1-3
    [sid:as]=binutils=2.47.50.20261021-1
)

cannot() {
    echo "cannot be tried: $*"
    exit 2
}

# --- namespaces -------------------------------------------------------------------------------------------

if [ -z "${FINDING_WORK:-}" ]; then
    [ "$(id -u)" = 0 ] || cannot "mounts and chroot need root"
    for tool in mmdebstrap apt-get unshare setpriv timeout; do
        [ -n "$(command -v $tool)" ] || cannot "there is no $tool"
    done
    child=
    trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    # /mnt is there on every Debian; what it holds is hidden from us alone.
    FINDING_WORK=/mnt setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc \
        bash "$0" "$@" </dev/null &
    child=$!
    wait "$child"
    status=$?
    child=
    exit $status
fi

work=$FINDING_WORK
keep=
if [ -n "${FINDINGS_KEEP:-}" ]; then
    keep=$(realpath "$FINDINGS_KEEP") || cannot "FINDINGS_KEEP: there is no $FINDINGS_KEEP"
fi
mount -t tmpfs -o mode=755,size=75% tmpfs "$work" && mkdir -m 1777 "$work/tmp" || cannot "no tmpfs can be mounted"
export TMPDIR=$work/tmp

# --- systems ----------------------------------------------------------------------------------------------

# system SUITE TOOL...: a system with these tools at their pinned versions. All systems have one /tmp, $work/tmp.
system() {
    local suite=$1 tool packages=() root log=$work/mmdebstrap.log uri
    for tool in "${@:2}"; do packages+=("${pins[$suite:$tool]}"); done
    root=$work/$suite
    mkdir "$root"
    if [ -n "$keep" ]; then
        local name
        name=$keep/$suite-$(printf '%s\n' "${packages[@]}" | sha256sum | cut -c 1-16)
        [ -e "$name" ] || { make_system "$name.part$$" && mv -T "$name.part$$" "$name"; }
        mount --bind "$name" "$root"
    else
        make_system "$root"
    fi
    mount --bind "$work/tmp" "$root/tmp"
    mount --rbind /dev "$root/dev"
    mount -t proc proc "$root/proc"
    echo "$suite: ${packages[*]}"
}

# Its archives unpacked, none configured: the tools need no more. Debian's own URI is the one that this machine uses.
make_system() {
    uri=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(RELEASE) $(REPO_URI)' |
        awk '$1 == "Debian" && $2 == "Debian" && $3 !~ /-/ { print $4; exit }')
    [ -n "$uri" ] || cannot "apt does not say where this machine has Debian from"
    local options=()
    [ "$suite" != sid ] || options+=(--aptopt='Acquire::Check-Valid-Until "false"')
    if ! timeout -k 5 300 mmdebstrap --mode=root --variant=extract --format=directory "${options[@]}" \
        --setup-hook='for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -sT "usr/$d" "$1/$d"; done; mkdir "$1/proc" "$1/sys"' \
        --include="$(IFS=,; echo "${packages[*]}")" "$suite" "$1" "$uri" >"$log" 2>&1; then
        local said
        said=$(grep '^E: ' "$log" | grep -v '^E: .* failed' | head -n 1)
        cannot "$suite, ${packages[*]}: ${said:-mmdebstrap failed: $(tail -n 1 "$log")}"
    fi
}

# inside SUITE COMMAND...: runs it in that system, in /tmp, for at most a minute.
inside() {
    env -i PATH=/usr/sbin:/usr/bin HOME=/tmp LC_ALL=C.UTF-8 \
        timeout -k 5 60 unshare --net --root="$work/$1" --wd=/tmp "${@:2}"
}

# --- guests -----------------------------------------------------------------------------------------------

# kernel SUITE NAME: assembles standard input to a multiboot kernel that QEMU's -kernel loads at 1 MiB. It begins at `start`
# in 32-bit protected mode, without paging and interrupts. QEMU takes a multiboot kernel as ELF32 only.
kernel() {
    {
        cat <<'EOF'
        .section .head, "a"
        .balign 4
        .long 0x1badb002, 0, -0x1badb002
        .text
        .globl start
        .code32
        .macro paging root, cr4, efer = 0       # turns paging on
        mov $\cr4, %eax
        mov %eax, %cr4
        mov $\root, %eax
        mov %eax, %cr3
        .if \efer
        mov $0xc0000080, %ecx
        rdmsr
        or $\efer, %eax
        wrmsr
        .endif
        mov $0x80000001, %eax
        mov %eax, %cr0
        .endm
        .macro long_mode                        # what follows is 64-bit code
        lgdt gdtr
        ljmp $8, $1f
        .balign 8
gdt:    .quad 0, 0x00209a0000000000
gdtr:   .word 15
        .quad gdt
        .code64
1:
        .endm
EOF
        cat
    } >"$work/tmp/$2.s"
    echo 'SECTIONS { . = 0x100000; .all : { *(.head) *(.text) *(.data) } .bss : { *(.bss) } }' >"$work/tmp/$2.ld"
    inside "$1" as --64 -o "$2.o" "$2.s" &&
        inside "$1" ld -m elf_x86_64 --no-warn-rwx-segments -e start -T "$2.ld" -o "$2.elf64" "$2.o" &&
        inside "$1" objcopy -O elf32-i386 "$2.elf64" "$2" || cannot "$1: the kernel does not build"
}

# symbol SUITE NAME SYMBOL: its address in that kernel, as 0x...
symbol() {
    inside "$1" nm "$2" | awk -v name="$3" '$3 == name { print "0x" $1 }'
}

# guest SUITE OPTION...: starts QEMU in the background, with its stub on a unix socket. `ended` waits for it.
guest() {
    rm -f "$work/tmp/stub"
    inside "$1" qemu-system-x86_64 -accel tcg -no-user-config -nodefaults -display none \
        -gdb unix:stub,server=on,wait=off "${@:2}" >"$work/tmp/qemu.out" 2>&1 &
    guest=$!
    local i
    for i in {1..200}; do
        [ ! -S "$work/tmp/stub" ] || return 0
        sleep 0.1
    done
    cannot "$1: QEMU does not start: $(tail -n 1 "$work/tmp/qemu.out")"
}

# Waits for the guest's QEMU; its exit status in $ended.
ended() {
    wait "$guest"
    ended=$?
}

# debugger SUITE [OPTION...]: GDB, attached to the guest; it takes its commands from standard input.
debugger() {
    { echo 'target remote stub' && cat; } >"$work/tmp/commands.gdb"
    inside "$1" gdb -nx -q -batch -iex 'set remotetimeout 30' "${@:2}" -x commands.gdb 2>&1 | tr -d '\r'
}

# --- what was seen ----------------------------------------------------------------------------------------

wrong=0

# seen WHAT WANTED GOT: compares one behaviour with the described one.
seen() {
    if [ "$2" = "$3" ]; then
        echo "as described: $1: $3"
    else
        echo "changed: $1: '$3', was '$2'"
        wrong=1
    fi
}

finish() {
    exit $wrong
}
