/*
 * The part of <wsk.h> that echo.c uses, written from the published interface. mingw-w64 has no wsk.h, and the one that
 * comes with Wine lacks WskInspectPend.
 */
#ifndef WSK_CLIENT_H
#define WSK_CLIENT_H

#include <wdm.h>

#define AF_INET 2
#define SOCK_STREAM 1
#define IPPROTO_TCP 6
#define SOL_SOCKET 0xffff
#define SO_CONDITIONAL_ACCEPT 0x3002

#define WSK_INFINITE_WAIT 0xffffffff
#define WSK_FLAG_LISTEN_SOCKET 0x00000001
#define MAKE_WSK_VERSION(major, minor) ((USHORT)(((major) << 8) | ((minor) & 0xff)))

typedef struct { USHORT sa_family; CHAR sa_data[14]; } SOCKADDR;
typedef struct { USHORT sin_family; USHORT sin_port; ULONG sin_addr; CHAR sin_zero[8]; } SOCKADDR_IN;

typedef struct _WSK_CLIENT *PWSK_CLIENT;
typedef struct { const void *Dispatch; } WSK_SOCKET, *PWSK_SOCKET;
typedef struct { PMDL Mdl; ULONG Offset; SIZE_T Length; } WSK_BUF;
typedef struct { ULONG_PTR Key; ULONG SerialNumber; } WSK_INSPECT_ID;
typedef enum { WskInspectReject, WskInspectAccept, WskInspectPend } WSK_INSPECT_ACTION;
typedef enum { WskSetOption, WskGetOption, WskIoctl } WSK_CONTROL_SOCKET_TYPE;

typedef NTSTATUS (NTAPI *PFN_WSK_ACCEPT_EVENT)(PVOID, ULONG, SOCKADDR *, SOCKADDR *, PWSK_SOCKET, PVOID *, const void **);
typedef WSK_INSPECT_ACTION (NTAPI *PFN_WSK_INSPECT_EVENT)(PVOID, SOCKADDR *, SOCKADDR *, WSK_INSPECT_ID *);
typedef NTSTATUS (NTAPI *PFN_WSK_ABORT_EVENT)(PVOID, WSK_INSPECT_ID *);

typedef struct {
    PFN_WSK_ACCEPT_EVENT WskAcceptEvent;
    PFN_WSK_INSPECT_EVENT WskInspectEvent;
    PFN_WSK_ABORT_EVENT WskAbortEvent;
} WSK_CLIENT_LISTEN_DISPATCH;

typedef struct {
    USHORT Version;
    USHORT Reserved;
    NTSTATUS (NTAPI *WskClientEvent)(PVOID, ULONG, PVOID, SIZE_T);
} WSK_CLIENT_DISPATCH;

typedef struct { PVOID ClientContext; const WSK_CLIENT_DISPATCH *Dispatch; } WSK_CLIENT_NPI;

typedef struct {
    ULONGLONG ReservedRegistrationState;
    PVOID ReservedRegistrationContext;
    KSPIN_LOCK ReservedRegistrationLock;
} WSK_REGISTRATION;

typedef NTSTATUS (NTAPI *PFN_WSK_SOCKET)(PWSK_CLIENT, USHORT Family, USHORT Type, ULONG Protocol, ULONG Flags,
                                         PVOID Context, const void *Dispatch, PVOID Process, PVOID Thread,
                                         PVOID SecurityDescriptor, PIRP);

typedef struct {
    USHORT Version;
    USHORT Reserved;
    PFN_WSK_SOCKET WskSocket;
    /* More functions follow, which this client does not use. */
} WSK_PROVIDER_DISPATCH;

typedef struct { PWSK_CLIENT Client; const WSK_PROVIDER_DISPATCH *Dispatch; } WSK_PROVIDER_NPI;

typedef struct {
    NTSTATUS (NTAPI *WskControlSocket)(PWSK_SOCKET, WSK_CONTROL_SOCKET_TYPE, ULONG Code, ULONG Level, SIZE_T InputSize,
                                       PVOID Input, SIZE_T OutputSize, PVOID Output, SIZE_T *Returned, PIRP);
    NTSTATUS (NTAPI *WskCloseSocket)(PWSK_SOCKET, PIRP);
} WSK_PROVIDER_BASIC_DISPATCH;

typedef struct {
    WSK_PROVIDER_BASIC_DISPATCH Basic;
    NTSTATUS (NTAPI *WskBind)(PWSK_SOCKET, SOCKADDR *, ULONG Flags, PIRP);
    NTSTATUS (NTAPI *WskAccept)(PWSK_SOCKET, ULONG Flags, PVOID Context, const void *Dispatch, SOCKADDR *Local,
                                SOCKADDR *Remote, PIRP);
    NTSTATUS (NTAPI *WskInspectComplete)(PWSK_SOCKET, WSK_INSPECT_ID *, WSK_INSPECT_ACTION, PIRP);
    NTSTATUS (NTAPI *WskGetLocalAddress)(PWSK_SOCKET, SOCKADDR *, PIRP);
} WSK_PROVIDER_LISTEN_DISPATCH;

typedef struct {
    WSK_PROVIDER_BASIC_DISPATCH Basic;
    NTSTATUS (NTAPI *WskBind)(PWSK_SOCKET, SOCKADDR *, ULONG Flags, PIRP);
    NTSTATUS (NTAPI *WskConnect)(PWSK_SOCKET, SOCKADDR *, ULONG Flags, PIRP);
    NTSTATUS (NTAPI *WskGetLocalAddress)(PWSK_SOCKET, SOCKADDR *, PIRP);
    NTSTATUS (NTAPI *WskGetRemoteAddress)(PWSK_SOCKET, SOCKADDR *, PIRP);
    NTSTATUS (NTAPI *WskSend)(PWSK_SOCKET, WSK_BUF *, ULONG Flags, PIRP);
    NTSTATUS (NTAPI *WskReceive)(PWSK_SOCKET, WSK_BUF *, ULONG Flags, PIRP);
    NTSTATUS (NTAPI *WskDisconnect)(PWSK_SOCKET, WSK_BUF *, ULONG Flags, PIRP);
    /* More functions follow, which this client does not use. */
} WSK_PROVIDER_CONNECTION_DISPATCH;

NTSTATUS NTAPI WskRegister(WSK_CLIENT_NPI *, WSK_REGISTRATION *);
NTSTATUS NTAPI WskCaptureProviderNPI(WSK_REGISTRATION *, ULONG Timeout, WSK_PROVIDER_NPI *);
VOID NTAPI WskReleaseProviderNPI(WSK_REGISTRATION *);
VOID NTAPI WskDeregister(WSK_REGISTRATION *);

#endif
