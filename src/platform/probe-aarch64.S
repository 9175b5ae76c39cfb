// Firmware that does what that of every guest does: it runs from flash, takes an
// exception and returns from it, and then powers off through PSCI. Its bytes are in
// probe.rs; a test there assembles this file and compares.

        .globl _start
_start: adr x0, _start              // the vectors: address 0 is aligned as they have to be
        msr vbar_el1, x0
        isb
        svc #0
        movz w0, #0x0008            // SYSTEM_OFF
        movk w0, #0x8400, lsl #16
        hvc #0
1:      b 1b

        .org 0x200                  // the vector of exceptions of this level
        eret
