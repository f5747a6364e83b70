/*
 * A WSK client in C: it listens, accepts and echoes, with IRPs throughout. It has nothing to do with the Rust library,
 * and so shows that netio.sys serves any client.
 *
 *   DriverEntry --> service thread: register, capture, socket, bind
 *                     |
 *                     +-- accept --> connection: receive --> send --> receive ... --> disconnect --> close
 *                     |   decide what is pended
 *   DriverUnload --> stop: cancel the accept and every connection, close the listener, release, deregister
 *
 * Parameters of the service (DWORD values of its key "Parameters"):
 *   Port       the TCP port, 7707 if absent, on every IPv4 address
 *   Inspect    0 no conditional accept (default); 1 accept; 2 reject; 3 pend, then accept; 4 pend, then reject;
 *              5 pend until the client gives up or the driver stops
 *   PendFor    how long a request is left pended, in milliseconds; 100 if absent
 */
#include "wsk_client.h"

NTSTATUS NTAPI ZwWaitForSingleObject(HANDLE, BOOLEAN, PLARGE_INTEGER);

#define TAG 0x6f686345 /* "Echo" */
#define BUFFER_SIZE 16384
#define PENDED 256
/* How often the pended requests are looked at, in units of 100 ns. */
#define TICK (-20 * 10000LL)

enum step { RECEIVE, SEND, DISCONNECT, CLOSE };

/*
 * A connection. One request is under way at a time, made with the connection's own IRP.
 *
 * The completion routine and the thread that made the request meet in `met`: who comes second goes on. So a request that
 * completes inside its call does not go on from inside the completion routine, and the stack does not grow.
 */
struct connection {
    LIST_ENTRY entry;
    PWSK_SOCKET socket;
    PIRP irp;
    PMDL mdl;
    WSK_BUF data;
    enum step step;
    volatile LONG met;
    /* One for the requests, and one while another thread cancels. */
    volatile LONG references;
    BOOLEAN cancelled;
    UCHAR bytes[BUFFER_SIZE];
};

struct pended {
    BOOLEAN used;
    WSK_INSPECT_ID id;
    LARGE_INTEGER since;
};

static struct {
    WSK_REGISTRATION registration;
    WSK_PROVIDER_NPI provider;
    PWSK_SOCKET listener;
    PVOID thread;
    KEVENT stop;
    ULONG port, inspect, pend_for;

    /* Guards what follows, and the decision of a connection to make its next request. */
    KSPIN_LOCK lock;
    BOOLEAN stopping;
    LIST_ENTRY connections;
    ULONG open;
    struct pended pended[PENDED];

    /* Set while no connection is open. */
    KEVENT all_closed;

    ULONG accepted, aborted;
    volatile LONG inspected;
    volatile LONG ended, reset;
    LONGLONG echoed;
} driver;

static NTSTATUS NTAPI signal(PDEVICE_OBJECT device, PIRP irp, PVOID event)
{
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    KeSetEvent(event, IO_NO_INCREMENT, FALSE);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* ---- Requests that are waited for -------------------------------------------------------------------------------- */

struct request {
    PIRP irp;
    KEVENT done;
};

static BOOLEAN request_init(struct request *request)
{
    KeInitializeEvent(&request->done, NotificationEvent, FALSE);
    request->irp = IoAllocateIrp(1, FALSE);
    return request->irp != NULL;
}

static PIRP request_begin(struct request *request)
{
    IoReuseIrp(request->irp, STATUS_UNSUCCESSFUL);
    KeClearEvent(&request->done);
    IoSetCompletionRoutine(request->irp, signal, &request->done, TRUE, TRUE, TRUE);
    return request->irp;
}

static NTSTATUS request_end(struct request *request)
{
    KeWaitForSingleObject(&request->done, Executive, KernelMode, FALSE, NULL);
    return request->irp->IoStatus.Status;
}

/* ---- Connections ------------------------------------------------------------------------------------------------- */

static void connection_run(struct connection *connection);

static void connection_release(struct connection *connection)
{
    if (InterlockedDecrement(&connection->references)) return;
    if (connection->mdl) IoFreeMdl(connection->mdl);
    if (connection->irp) IoFreeIrp(connection->irp);
    ExFreePoolWithTag(connection, TAG);
}

static NTSTATUS NTAPI connection_completed(PDEVICE_OBJECT device, PIRP irp, PVOID context)
{
    struct connection *connection = context;
    UNREFERENCED_PARAMETER(device);
    UNREFERENCED_PARAMETER(irp);
    if (InterlockedExchange(&connection->met, 1)) connection_run(connection);
    return STATUS_MORE_PROCESSING_REQUIRED;
}

/* What follows the request that has just completed. */
static enum step connection_next(struct connection *connection)
{
    const IO_STATUS_BLOCK *result = &connection->irp->IoStatus;
    if (result->Status == STATUS_CONNECTION_RESET) InterlockedIncrement(&driver.reset);
    if (!NT_SUCCESS(result->Status)) return CLOSE;
    switch (connection->step) {
    case RECEIVE:
        connection->data.Length = result->Information;
        if (result->Information) return SEND;
        InterlockedIncrement(&driver.ended);
        return DISCONNECT;
    case SEND:
        InterlockedExchangeAdd64(&driver.echoed, result->Information);
        connection->data.Length = BUFFER_SIZE;
        return RECEIVE;
    default:
        return CLOSE;
    }
}

/* Makes the request `step`. The connection is gone when a close has completed. */
static void connection_request(struct connection *connection, enum step step)
{
    const WSK_PROVIDER_CONNECTION_DISPATCH *table = connection->socket->Dispatch;
    KIRQL irql;

    KeAcquireSpinLock(&driver.lock, &irql);
    /* From here on a cancellation sticks to the request: DriverUnload, which takes the lock too, misses none. */
    IoReuseIrp(connection->irp, STATUS_UNSUCCESSFUL);
    connection->step = driver.stopping ? CLOSE : step;
    KeReleaseSpinLock(&driver.lock, irql);

    IoSetCompletionRoutine(connection->irp, connection_completed, connection, TRUE, TRUE, TRUE);
    connection->met = 0;
    switch (connection->step) {
    case RECEIVE: table->WskReceive(connection->socket, &connection->data, 0, connection->irp); break;
    case SEND: table->WskSend(connection->socket, &connection->data, 0, connection->irp); break;
    case DISCONNECT: table->WskDisconnect(connection->socket, NULL, 0, connection->irp); break;
    case CLOSE: table->Basic.WskCloseSocket(connection->socket, connection->irp); break;
    }
}

/* Goes on after a request has completed, as far as that goes without waiting. */
static void connection_run(struct connection *connection)
{
    KIRQL irql;
    BOOLEAN last;

    while (connection->step != CLOSE) {
        connection_request(connection, connection_next(connection));
        if (!InterlockedExchange(&connection->met, 1)) return;
    }
    KeAcquireSpinLock(&driver.lock, &irql);
    RemoveEntryList(&connection->entry);
    last = --driver.open == 0;
    if (last) KeSetEvent(&driver.all_closed, IO_NO_INCREMENT, FALSE);
    KeReleaseSpinLock(&driver.lock, irql);
    connection_release(connection);
}

static struct connection *connection_new(void)
{
    struct connection *connection = ExAllocatePoolWithTag(NonPagedPool, sizeof(*connection), TAG);
    if (!connection) return NULL;
    RtlZeroMemory(connection, FIELD_OFFSET(struct connection, bytes));
    connection->references = 1;
    connection->irp = IoAllocateIrp(1, FALSE);
    connection->mdl = IoAllocateMdl(connection->bytes, BUFFER_SIZE, FALSE, FALSE, NULL);
    if (!connection->irp || !connection->mdl) {
        connection_release(connection);
        return NULL;
    }
    MmBuildMdlForNonPagedPool(connection->mdl);
    connection->data.Mdl = connection->mdl;
    connection->data.Length = BUFFER_SIZE;
    return connection;
}

static void connection_start(PWSK_SOCKET socket)
{
    struct connection *connection = connection_new();
    KIRQL irql;

    if (!connection) {
        const WSK_PROVIDER_BASIC_DISPATCH *table = socket->Dispatch;
        struct request close;
        DbgPrint("echo_c: no memory for a connection\n");
        /* Without an IRP the socket cannot be closed; the driver will not unload, which is the honest outcome. */
        if (!request_init(&close)) return;
        table->WskCloseSocket(socket, request_begin(&close));
        request_end(&close);
        IoFreeIrp(close.irp);
        return;
    }
    connection->socket = socket;
    KeAcquireSpinLock(&driver.lock, &irql);
    InsertTailList(&driver.connections, &connection->entry);
    driver.open++;
    KeClearEvent(&driver.all_closed);
    KeReleaseSpinLock(&driver.lock, irql);
    driver.accepted++;
    connection_request(connection, RECEIVE);
    if (InterlockedExchange(&connection->met, 1)) connection_run(connection);
}

/* ---- Conditional accept ------------------------------------------------------------------------------------------ */

static WSK_INSPECT_ACTION NTAPI inspect(PVOID context, SOCKADDR *local, SOCKADDR *remote, WSK_INSPECT_ID *id)
{
    WSK_INSPECT_ACTION action = WskInspectReject;
    KIRQL irql;
    ULONG i;

    UNREFERENCED_PARAMETER(context);
    UNREFERENCED_PARAMETER(local);
    UNREFERENCED_PARAMETER(remote);
    if (!id) return WskInspectReject;
    InterlockedIncrement(&driver.inspected);
    if (driver.inspect == 1) return WskInspectAccept;
    if (driver.inspect == 2) return WskInspectReject;
    KeAcquireSpinLock(&driver.lock, &irql);
    for (i = 0; i < PENDED && !driver.stopping; i++) {
        struct pended *slot = &driver.pended[i];
        if (slot->used) continue;
        slot->used = TRUE;
        slot->id = *id;
        KeQuerySystemTime(&slot->since);
        action = WskInspectPend;
        break;
    }
    KeReleaseSpinLock(&driver.lock, irql);
    return action;
}

static NTSTATUS NTAPI aborted(PVOID context, WSK_INSPECT_ID *id)
{
    KIRQL irql;
    ULONG i;

    UNREFERENCED_PARAMETER(context);
    KeAcquireSpinLock(&driver.lock, &irql);
    driver.aborted++;
    for (i = 0; i < PENDED; i++) {
        struct pended *slot = &driver.pended[i];
        if (slot->used && slot->id.Key == id->Key && slot->id.SerialNumber == id->SerialNumber) slot->used = FALSE;
    }
    KeReleaseSpinLock(&driver.lock, irql);
    return STATUS_SUCCESS;
}

static const WSK_CLIENT_LISTEN_DISPATCH listen_events = { NULL, inspect, aborted };

/* Takes a pended request whose time is over, or any when the driver stops. */
static BOOLEAN take_due(WSK_INSPECT_ID *id)
{
    BOOLEAN found = FALSE;
    LARGE_INTEGER now;
    KIRQL irql;
    ULONG i;

    KeQuerySystemTime(&now);
    KeAcquireSpinLock(&driver.lock, &irql);
    for (i = 0; i < PENDED && !found; i++) {
        struct pended *slot = &driver.pended[i];
        LONGLONG age = now.QuadPart - slot->since.QuadPart;
        if (!slot->used) continue;
        if (!driver.stopping && (driver.inspect == 5 || age < driver.pend_for * 10000LL)) continue;
        slot->used = FALSE;
        *id = slot->id;
        found = TRUE;
    }
    KeReleaseSpinLock(&driver.lock, irql);
    return found;
}

/* Has a request that could not be decided yet wait on. */
static void put_back(const WSK_INSPECT_ID *id)
{
    KIRQL irql;
    ULONG i;

    KeAcquireSpinLock(&driver.lock, &irql);
    for (i = 0; i < PENDED; i++) {
        struct pended *slot = &driver.pended[i];
        if (slot->used) continue;
        slot->used = TRUE;
        slot->id = *id;
        KeQuerySystemTime(&slot->since);
        break;
    }
    KeReleaseSpinLock(&driver.lock, irql);
}

static void decide_due(struct request *request)
{
    const WSK_PROVIDER_LISTEN_DISPATCH *table = driver.listener->Dispatch;
    WSK_INSPECT_ID id;

    while (take_due(&id)) {
        WSK_INSPECT_ACTION action =
            driver.inspect == 3 && !driver.stopping ? WskInspectAccept : WskInspectReject;
        table->WskInspectComplete(driver.listener, &id, action, request_begin(request));
        /* It may fail because the client has given up, of which the abort event tells; or because the inspect event that
         * pended it has not returned yet, and then it is decided with the next tick. */
        if (request_end(request) == STATUS_INVALID_DEVICE_STATE) {
            put_back(&id);
            break;
        }
    }
}

/* ---- The service ------------------------------------------------------------------------------------------------- */

static NTSTATUS listen(struct request *request)
{
    const WSK_PROVIDER_LISTEN_DISPATCH *table;
    SOCKADDR_IN address = { AF_INET, 0, 0, { 0 } };
    NTSTATUS status;

    driver.provider.Dispatch->WskSocket(driver.provider.Client, AF_INET, SOCK_STREAM, IPPROTO_TCP,
                                        WSK_FLAG_LISTEN_SOCKET, NULL, &listen_events, NULL, NULL, NULL,
                                        request_begin(request));
    status = request_end(request);
    if (!NT_SUCCESS(status)) return status;
    driver.listener = (PWSK_SOCKET)request->irp->IoStatus.Information;
    table = driver.listener->Dispatch;

    if (driver.inspect) {
        ULONG on = 1;
        table->Basic.WskControlSocket(driver.listener, WskSetOption, SO_CONDITIONAL_ACCEPT, SOL_SOCKET, sizeof(on), &on,
                                      0, NULL, NULL, request_begin(request));
        status = request_end(request);
        if (!NT_SUCCESS(status)) return status;
    }
    address.sin_port = (USHORT)(driver.port >> 8 | driver.port << 8);
    table->WskBind(driver.listener, (SOCKADDR *)&address, 0, request_begin(request));
    return request_end(request);
}

static void accept_until_stopped(struct request *request)
{
    const WSK_PROVIDER_LISTEN_DISPATCH *table = driver.listener->Dispatch;
    struct request accept;
    PVOID objects[2];
    LARGE_INTEGER tick;
    NTSTATUS status;

    if (!request_init(&accept)) return;
    objects[0] = &driver.stop;
    objects[1] = &accept.done;
    tick.QuadPart = TICK;
    for (;;) {
        table->WskAccept(driver.listener, 0, NULL, NULL, NULL, NULL, request_begin(&accept));
        do {
            status = KeWaitForMultipleObjects(2, objects, WaitAny, Executive, KernelMode, FALSE,
                                              driver.inspect > 2 ? &tick : NULL, NULL);
            decide_due(request);
        } while (status == STATUS_TIMEOUT);
        if (status == STATUS_WAIT_0) IoCancelIrp(accept.irp);
        if (NT_SUCCESS(request_end(&accept))) {
            /* Even when it was to be cancelled: the connection is there, and has to be closed. */
            connection_start((PWSK_SOCKET)accept.irp->IoStatus.Information);
        } else if (status != STATUS_WAIT_0) {
            DbgPrint("echo_c: accept failed with %#lx\n", (ULONG)accept.irp->IoStatus.Status);
            KeWaitForSingleObject(&driver.stop, Executive, KernelMode, FALSE, NULL);
            status = STATUS_WAIT_0;
        }
        if (status == STATUS_WAIT_0) break;
    }
    IoFreeIrp(accept.irp);
}

/* The next connection whose request is to be cancelled, if there is one; it is not freed before it is released. */
static struct connection *take_uncancelled(void)
{
    struct connection *found = NULL;
    LIST_ENTRY *entry;
    KIRQL irql;

    KeAcquireSpinLock(&driver.lock, &irql);
    for (entry = driver.connections.Flink; entry != &driver.connections && !found; entry = entry->Flink) {
        struct connection *connection = CONTAINING_RECORD(entry, struct connection, entry);
        if (connection->cancelled || connection->step == CLOSE) continue;
        connection->cancelled = TRUE;
        InterlockedIncrement(&connection->references);
        found = connection;
    }
    KeReleaseSpinLock(&driver.lock, irql);
    return found;
}

/* Ends what is under way on every connection; each closes itself then. */
static void close_connections(void)
{
    struct connection *connection;

    while ((connection = take_uncancelled())) {
        IoCancelIrp(connection->irp);
        connection_release(connection);
    }
    KeWaitForSingleObject(&driver.all_closed, Executive, KernelMode, FALSE, NULL);
}

static void serve(void)
{
    const WSK_PROVIDER_BASIC_DISPATCH *table;
    struct request request;
    NTSTATUS status;
    KIRQL irql;

    if (!request_init(&request)) return;
    status = listen(&request);
    if (NT_SUCCESS(status)) {
        DbgPrint("echo_c: listening on port %lu\n", driver.port);
        accept_until_stopped(&request);
    } else {
        DbgPrint("echo_c: cannot listen on port %lu: %#lx\n", driver.port, (ULONG)status);
    }

    KeAcquireSpinLock(&driver.lock, &irql);
    driver.stopping = TRUE;
    KeReleaseSpinLock(&driver.lock, irql);
    if (driver.listener) {
        decide_due(&request);
        table = driver.listener->Dispatch;
        table->WskCloseSocket(driver.listener, request_begin(&request));
        request_end(&request);
    }
    close_connections();
    IoFreeIrp(request.irp);
}

static VOID NTAPI service(PVOID context)
{
    static const WSK_CLIENT_DISPATCH dispatch = { MAKE_WSK_VERSION(1, 0), 0, NULL };
    WSK_CLIENT_NPI client = { NULL, &dispatch };
    NTSTATUS status;

    UNREFERENCED_PARAMETER(context);
    status = WskRegister(&client, &driver.registration);
    if (NT_SUCCESS(status)) {
        /* Not for ever: a driver that waits here cannot be stopped. */
        status = WskCaptureProviderNPI(&driver.registration, 5000, &driver.provider);
        if (NT_SUCCESS(status)) {
            serve();
            WskReleaseProviderNPI(&driver.registration);
        } else {
            DbgPrint("echo_c: there is no WSK provider: %#lx\n", (ULONG)status);
        }
        WskDeregister(&driver.registration);
    } else {
        DbgPrint("echo_c: WskRegister failed: %#lx\n", (ULONG)status);
    }
    DbgPrint("echo_c: ended: accepted=%lu ended=%ld reset=%ld inspected=%ld aborted=%lu echoed=%I64d\n",
             driver.accepted, driver.ended, driver.reset, driver.inspected, driver.aborted, driver.echoed);
    PsTerminateSystemThread(STATUS_SUCCESS);
}

/* ---- The driver -------------------------------------------------------------------------------------------------- */

static void read_parameter(HANDLE key, const WCHAR *name, ULONG *value)
{
    struct {
        KEY_VALUE_PARTIAL_INFORMATION information;
        UCHAR more[16];
    } buffer;
    UNICODE_STRING string;
    ULONG size;

    RtlInitUnicodeString(&string, name);
    if (!NT_SUCCESS(ZwQueryValueKey(key, &string, KeyValuePartialInformation, &buffer, sizeof(buffer), &size))) return;
    if (buffer.information.Type != REG_DWORD || buffer.information.DataLength != sizeof(ULONG)) return;
    RtlCopyMemory(value, buffer.information.Data, sizeof(ULONG));
}

static void read_parameters(PUNICODE_STRING path)
{
    UNICODE_STRING name;
    OBJECT_ATTRIBUTES attributes;
    HANDLE service_key, key;

    driver.port = 7707;
    driver.pend_for = 100;
    InitializeObjectAttributes(&attributes, path, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, NULL, NULL);
    if (!NT_SUCCESS(ZwOpenKey(&service_key, KEY_READ, &attributes))) return;
    RtlInitUnicodeString(&name, L"Parameters");
    InitializeObjectAttributes(&attributes, &name, OBJ_KERNEL_HANDLE | OBJ_CASE_INSENSITIVE, service_key, NULL);
    if (NT_SUCCESS(ZwOpenKey(&key, KEY_READ, &attributes))) {
        read_parameter(key, L"Port", &driver.port);
        read_parameter(key, L"Inspect", &driver.inspect);
        read_parameter(key, L"PendFor", &driver.pend_for);
        ZwClose(key);
    }
    ZwClose(service_key);
}

static VOID NTAPI unload(PDRIVER_OBJECT object)
{
    UNREFERENCED_PARAMETER(object);
    KeSetEvent(&driver.stop, IO_NO_INCREMENT, FALSE);
    KeWaitForSingleObject(driver.thread, Executive, KernelMode, FALSE, NULL);
    ObDereferenceObject(driver.thread);
}

NTSTATUS NTAPI DriverEntry(PDRIVER_OBJECT object, PUNICODE_STRING path)
{
    HANDLE thread;
    NTSTATUS status;

    RtlZeroMemory(&driver, sizeof(driver));
    KeInitializeSpinLock(&driver.lock);
    InitializeListHead(&driver.connections);
    KeInitializeEvent(&driver.stop, NotificationEvent, FALSE);
    KeInitializeEvent(&driver.all_closed, NotificationEvent, TRUE);
    read_parameters(path);

    status = PsCreateSystemThread(&thread, THREAD_ALL_ACCESS, NULL, NULL, NULL, service, NULL);
    if (!NT_SUCCESS(status)) return status;
    status = ObReferenceObjectByHandle(thread, THREAD_ALL_ACCESS, NULL, KernelMode, &driver.thread, NULL);
    if (!NT_SUCCESS(status)) {
        /* The thread uses this image: let it end before the image goes. */
        KeSetEvent(&driver.stop, IO_NO_INCREMENT, FALSE);
        ZwWaitForSingleObject(thread, FALSE, NULL);
    } else {
        object->DriverUnload = unload;
    }
    ZwClose(thread);
    return status;
}
