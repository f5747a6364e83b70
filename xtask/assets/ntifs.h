/*
 * Stands in for the kit's <ntifs.h> when a driver is built against the headers of mingw-w64.
 *
 * It is the first header that the bindings' generator reads, so everything that those headers get wrong for
 * clang's msvc mode, or lack, is put right here. A driver built with the real kit never sees this file.
 */
#pragma once

#include <ntdef.h>

/*
 * Without __GNUC__ <ntdef.h> takes the address of a member of a null structure, which is no constant
 * expression, and the size checks of <wdm.h> need one.
 */
#undef FIELD_OFFSET
#define FIELD_OFFSET(type, field) ((LONG)__builtin_offsetof(type, field))
#undef RTL_FIELD_OFFSET
#define RTL_FIELD_OFFSET(type, field) __builtin_offsetof(type, field)

/*
 * The <ntifs.h> of mingw-w64 defines _REPARSE_DATA_BUFFER a second time. Drivers that use Winsock Kernel need
 * nothing else from it.
 */
#include <ntddk.h>

/* Pool allocation as Windows 10, version 2004, has it. */
typedef ULONG64 POOL_FLAGS;

#define POOL_FLAG_REQUIRED_START 0x0000000000000001UI64
#define POOL_FLAG_USE_QUOTA 0x0000000000000001UI64
#define POOL_FLAG_UNINITIALIZED 0x0000000000000002UI64
#define POOL_FLAG_SESSION 0x0000000000000004UI64
#define POOL_FLAG_CACHE_ALIGNED 0x0000000000000008UI64
#define POOL_FLAG_RAISE_ON_FAILURE 0x0000000000000020UI64
#define POOL_FLAG_NON_PAGED 0x0000000000000040UI64
#define POOL_FLAG_NON_PAGED_EXECUTE 0x0000000000000080UI64
#define POOL_FLAG_PAGED 0x0000000000000100UI64

PVOID NTAPI ExAllocatePool2(POOL_FLAGS Flags, SIZE_T NumberOfBytes, ULONG Tag);

/* Access to the security of objects. The kernel's import library has both. */
NTSTATUS NTAPI ObOpenObjectByPointer(PVOID Object, ULONG HandleAttributes, PACCESS_STATE PassedAccessState,
                                     ACCESS_MASK DesiredAccess, POBJECT_TYPE ObjectType,
                                     KPROCESSOR_MODE AccessMode, PHANDLE Handle);
NTSTATUS NTAPI ZwSetSecurityObject(HANDLE Handle, SECURITY_INFORMATION SecurityInformation,
                                   PSECURITY_DESCRIPTOR SecurityDescriptor);
