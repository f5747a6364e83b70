/*
 * ExAllocatePool2 over ExAllocatePoolWithTag.
 *
 * Neither the import library of mingw-w64 nor the kernel of Wine 8 has ExAllocatePool2, which the pool allocator of
 * `wdk-alloc` calls. This object goes into an archive that every driver links, and only into images built on Linux.
 */

typedef unsigned long ULONG;
typedef unsigned long long ULONG64;
typedef unsigned long long SIZE_T;

#define POOL_FLAG_UNINITIALIZED 0x02ULL
#define POOL_FLAG_PAGED 0x100ULL

/* Values of POOL_TYPE. */
#define PagedPool 1
#define NonPagedPoolNx 512

void *ExAllocatePoolWithTag(int type, SIZE_T size, ULONG tag);

void *ExAllocatePool2(ULONG64 flags, SIZE_T size, ULONG tag)
{
    void *block = ExAllocatePoolWithTag(flags & POOL_FLAG_PAGED ? PagedPool : NonPagedPoolNx, size, tag);
    if (block && !(flags & POOL_FLAG_UNINITIALIZED)) {
        /* Not a loop: the compiler would make a call to memset of it, which nothing here provides. */
        void *to = block;
        __asm__ volatile("rep stosb" : "+D"(to), "+c"(size) : "a"(0) : "memory");
    }
    return block;
}
