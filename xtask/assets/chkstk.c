/*
 * __chkstk: touches the pages of a large stack frame, one after another. On Windows it comes from ntoskrnl.lib; the
 * import library of mingw-w64 has no entry for it.
 *
 * The frame's size is in rax. Every register is preserved.
 */

__attribute__((naked)) void __chkstk(void)
{
    __asm__(
        "pushq %rcx\n\t"
        "pushq %rax\n\t"
        /* The caller's stack pointer: above the two registers and the return address. */
        "leaq 24(%rsp), %rcx\n"
        "1:\n\t"
        "cmpq $0x1000, %rax\n\t"
        "jb 2f\n\t"
        "subq $0x1000, %rcx\n\t"
        "testq %rcx, (%rcx)\n\t"
        "subq $0x1000, %rax\n\t"
        "jmp 1b\n"
        "2:\n\t"
        "subq %rax, %rcx\n\t"
        "testq %rcx, (%rcx)\n\t"
        "popq %rax\n\t"
        "popq %rcx\n\t"
        "retq");
}
