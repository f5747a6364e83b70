/*
 * bcryptprimitives.dll with the one function of it that Rust's standard library calls. Wine 8 has no such DLL.
 */

#include <windows.h>

/* RtlGenRandom, under the name it is exported by. */
BOOLEAN WINAPI SystemFunction036(PVOID buffer, ULONG length);

#define PART 0x10000000u

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE buffer, SIZE_T length)
{
    while (length) {
        ULONG part = length > PART ? PART : (ULONG)length;
        if (!SystemFunction036(buffer, part))
            return FALSE;
        buffer += part;
        length -= part;
    }
    return TRUE;
}

BOOL WINAPI DllMain(HINSTANCE module, DWORD reason, PVOID reserved)
{
    (void)module;
    (void)reason;
    (void)reserved;
    return TRUE;
}
