# A boot sector that does what the boot of every guest does: it asks the BIOS
# for its disk services, goes from real over protected to long mode, and then
# says so through isa-debug-exit, at port 0xf4. Its bytes are in accel.rs; a
# test there assembles this file and compares.

        .code16
        .globl _start
_start: cli
        xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7c00, %sp
        ljmp $0, $1f
1:      movb $0x41, %ah             # INT 13h extensions: boot loaders ask
        movw $0x55aa, %bx
        movb $0x80, %dl
        int $0x13
        cli
        movw $0x1000, %di           # page tables, zeroed
        xorl %eax, %eax
        movw $0xc00, %cx
        cld
        rep stosl
        movl $0x2003, 0x1000        # the first 2 MiB, as they are
        movl $0x3003, 0x2000
        movl $0x0083, 0x3000
        lgdt gdtr
        movl %cr0, %eax
        orb $1, %al
        movl %eax, %cr0             # CR0.PE
        ljmp $8, $protected

        .code32
protected:
        movw $0x10, %ax
        movw %ax, %ds
        movw %ax, %ss
        movl $0x7c00, %esp
        pushfl                      # the end of an interrupt, as in boot loaders
        pushl $8
        pushl $1f
        iretl
1:      xorl %eax, %eax
        cpuid                       # leaves to the hypervisor and comes back
        movl %cr4, %eax
        orl $0x20, %eax             # CR4.PAE
        movl %eax, %cr4
        movl $0x1000, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx      # EFER.LME
        rdmsr
        orl $0x100, %eax
        wrmsr
        movl %cr0, %eax
        orl $0x80000000, %eax       # CR0.PG
        movl %eax, %cr0
        ljmp $0x18, $long

        .code64
long:   movb $0x15, %al             # makes QEMU exit with 0x15 * 2 + 1
        outb %al, $0xf4
1:      hlt
        jmp 1b

        .align 8
gdt:    .quad 0
        .quad 0x00cf9a000000ffff    # 32-bit code
        .quad 0x00cf92000000ffff    # data
        .quad 0x00af9a000000ffff    # 64-bit code
gdtr:   .word . - gdt - 1
        .long gdt
