//! Registration through the Network Module Registrar instead of `WskRegister` (contract 3.1, 4.5).

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use wsk_sim::raw::*;
use wsk_sim::{Completion, Sim};
use wsk_sys::nt::{HANDLE, NTSTATUS};
use wsk_sys::*;

use crate::support::*;
use crate::threads::{Scarce, comes_back};

static DISPATCH: WSK_CLIENT_DISPATCH =
    WSK_CLIENT_DISPATCH { Version: MAKE_WSK_VERSION(1, 0), Reserved: 0, WskClientEvent: None };

/// A driver that uses the registrar: its context, its binding context, and the calls of its callbacks.
#[derive(Debug, Default)]
struct Module {
    handle: AtomicUsize,
    binding: AtomicUsize,
    client: AtomicPtr<c_void>,
    functions: AtomicPtr<c_void>,
    attached: AtomicU32,
    detached: AtomicU32,
    cleaned: AtomicU32,
    /// Answer the next detach with `STATUS_PENDING`.
    busy: AtomicBool,
    /// The answer to a detach otherwise.
    answer: AtomicI32,
    versions: AtomicU32,
}

unsafe extern "system" fn attach(
    binding: HANDLE,
    context: *mut c_void,
    instance: *mut NPI_REGISTRATION_INSTANCE,
) -> NTSTATUS {
    // SAFETY: the context is the module, which outlives its registration.
    let module = unsafe { &*context.cast::<Module>() };
    // SAFETY: the instance is valid during the callback.
    let versions = unsafe { (*instance).NpiSpecificCharacteristics }.cast::<WSK_PROVIDER_CHARACTERISTICS>();
    // SAFETY: WSK's own characteristics are of that type.
    module.versions.store(unsafe { (*versions).HighestVersion }.into(), SeqCst);
    module.binding.store(binding as usize, SeqCst);
    let (mut client, mut functions) = (ptr::null_mut(), ptr::null());
    let dispatch = (&raw const DISPATCH).cast();
    // SAFETY: the table is static, and the call is made inside the attach callback.
    let status =
        unsafe { NmrClientAttachProvider(binding, context, dispatch, &raw mut client, &raw mut functions) };
    module.client.store(client, SeqCst);
    module.functions.store(functions.cast_mut(), SeqCst);
    module.attached.fetch_add(1, SeqCst);
    status
}

unsafe extern "system" fn detach(context: *mut c_void) -> NTSTATUS {
    // SAFETY: the binding context is the module.
    let module = unsafe { &*context.cast::<Module>() };
    module.detached.fetch_add(1, SeqCst);
    if module.busy.load(SeqCst) { STATUS_PENDING } else { module.answer.load(SeqCst) }
}

unsafe extern "system" fn clean_up(context: *mut c_void) {
    // SAFETY: the binding context is the module.
    unsafe { &*context.cast::<Module>() }.cleaned.fetch_add(1, SeqCst);
}

impl Module {
    fn register() -> PoolBox<Self> {
        Self::register_for(&NPI_WSK_INTERFACE_ID)
    }

    fn register_for(interface: &'static NPIID) -> PoolBox<Self> {
        Self::register_as(interface, Some(detach))
    }

    fn register_as(
        interface: &'static NPIID,
        detach: Option<unsafe extern "system" fn(*mut c_void) -> NTSTATUS>,
    ) -> PoolBox<Self> {
        let module = PoolBox::new(Self::default());
        let characteristics = NPI_CLIENT_CHARACTERISTICS {
            Version: 0,
            Length: size_of::<NPI_CLIENT_CHARACTERISTICS>() as u16,
            ClientAttachProvider: Some(attach),
            ClientDetachProvider: detach,
            ClientCleanupBindingContext: Some(clean_up),
            ClientRegistrationInstance: NPI_REGISTRATION_INSTANCE {
                Version: 0,
                Size: size_of::<NPI_REGISTRATION_INSTANCE>() as u16,
                NpiId: ptr::from_ref(interface),
                ModuleId: ptr::null(),
                Number: 0,
                NpiSpecificCharacteristics: ptr::null(),
            },
        };
        let mut handle = ptr::null_mut();
        let context = module.as_ptr().cast();
        // SAFETY: the module outlives its registration.
        let status = unsafe { NmrRegisterClient(&raw const characteristics, context, &raw mut handle) };
        assert_eq!(status, STATUS_SUCCESS);
        module.handle.store(handle as usize, SeqCst);
        module
    }

    fn handle(&self) -> HANDLE {
        self.handle.load(SeqCst) as HANDLE
    }

    /// A listening socket, made through the binding.
    fn listener(&self) -> Request {
        let functions = self.functions.load(SeqCst).cast::<WSK_PROVIDER_DISPATCH>();
        // SAFETY: the binding gave the table, which is constant.
        let function = unsafe { (*functions).WskSocket }.unwrap();
        let (client, null) = (self.client.load(SeqCst).cast(), ptr::null_mut());
        Request::new().submit("WskSocket", |irp| {
            let (process, thread, listen) = (ptr::null_mut(), ptr::null_mut(), WSK_FLAG_LISTEN_SOCKET);
            let (family, kind, protocol) = (AF_INET, SOCK_STREAM, IPPROTO_TCP);
            // SAFETY: the client is the one that the binding gave.
            unsafe {
                function(
                    client,
                    family,
                    kind,
                    protocol,
                    listen,
                    null,
                    ptr::null(),
                    process,
                    thread,
                    null,
                    irp,
                )
            }
        })
    }

    fn counts(&self) -> (u32, u32, u32) {
        (self.attached.load(SeqCst), self.detached.load(SeqCst), self.cleaned.load(SeqCst))
    }
}

/// Waits on a thread of its own until the registration has ended, and tells the status of that.
fn await_deregistration(sim: &Sim, module: &Module) -> mpsc::Receiver<NTSTATUS> {
    let handle = module.handle.load(SeqCst);
    let (done, ended) = mpsc::channel();
    drop(sim.thread("wait", move || {
        // SAFETY: the handle is that of a registration that is ending.
        let status = unsafe { NmrWaitForClientDeregisterComplete(handle as HANDLE) };
        let _ = done.send(status);
    }));
    ended
}

/// Closes a socket that a request of [`Module::listener`] has made.
fn close(socket: usize) {
    let socket = socket as PWSK_SOCKET;
    // SAFETY: the socket is open, and its table begins with the basic one.
    let table = unsafe { (*socket).Dispatch }.cast::<WSK_PROVIDER_BASIC_DISPATCH>();
    // SAFETY: the socket is open, and its table begins with the basic one.
    let function = unsafe { (*table).WskCloseSocket }.unwrap();
    // SAFETY: the socket is open and not used any more.
    Request::new().submit("WskCloseSocket", |irp| unsafe { function(socket, irp) }).ok();
}

/// Shows: REG-30, REG-31
#[test]
fn the_registrar_binds_a_client_and_detaches_it_once_its_sockets_are_closed() {
    Sim::new().run(|sim| {
        let module = Module::register();
        assert_eq!(module.counts(), (1, 0, 0));
        assert_eq!(module.versions.load(SeqCst), u32::from(MAKE_WSK_VERSION(1, 0)));
        let functions = module.functions.load(SeqCst).cast::<WSK_PROVIDER_DISPATCH>();
        // SAFETY: the provider dispatch is a table of client functions.
        assert_eq!(unsafe { (*functions).Version }, MAKE_WSK_VERSION(1, 0));
        let socket = module.listener().ok().information;
        // SAFETY: the handle is the registration's.
        assert_eq!(unsafe { NmrDeregisterClient(module.handle()) }, STATUS_PENDING);
        let ended = await_deregistration(sim, &module);
        assert!(ended.recv_timeout(A_WHILE).is_err(), "a socket is open");
        assert_eq!(module.counts(), (1, 1, 0));
        close(socket);
        assert_eq!(ended.recv_timeout(BOUND), Ok(STATUS_SUCCESS));
        assert_eq!(module.counts(), (1, 1, 1));
    });
}

/// Shows: REG-30
#[test]
fn a_client_of_another_interface_is_registered_and_never_attached() {
    static ANOTHER: NPIID = NPIID { data1: 7, ..NPI_WSK_INTERFACE_ID };
    let sim = Sim::builder().late().build();
    sim.run(|sim| {
        let early = Module::register_for(&ANOTHER);
        sim.provider().arrive();
        let late = Module::register_for(&ANOTHER);
        for module in [early, late] {
            assert_eq!(module.counts(), (0, 0, 0));
            // SAFETY: the handle is the registration's.
            assert_eq!(unsafe { NmrDeregisterClient(module.handle()) }, STATUS_SUCCESS);
            assert_eq!(module.counts(), (0, 0, 0));
        }
    });
}

/// Shows: REG-31
#[test]
fn a_detach_needs_no_new_thread() {
    let (sim, host) = Scarce::machine(Completion::Natural);
    sim.run(move |sim| {
        let module = Module::register();
        host.run_out();
        let handle = module.handle.load(SeqCst);
        comes_back(sim, move || {
            // SAFETY: the handle is the registration's.
            assert_eq!(unsafe { NmrDeregisterClient(handle as HANDLE) }, STATUS_PENDING);
            // SAFETY: the handle is the registration's.
            assert_eq!(unsafe { NmrWaitForClientDeregisterComplete(handle as HANDLE) }, STATUS_SUCCESS);
        });
        assert_eq!(module.counts(), (1, 1, 1));
    });
}

/// Shows: REG-31
#[test]
fn a_client_that_is_busy_says_later_that_it_has_detached() {
    Sim::new().run(|sim| {
        let module = Module::register();
        module.busy.store(true, SeqCst);
        // SAFETY: the handle is the registration's.
        assert_eq!(unsafe { NmrDeregisterClient(module.handle()) }, STATUS_PENDING);
        let ended = await_deregistration(sim, &module);
        // No socket is open: only the client's call in progress is in the way.
        assert!(ended.recv_timeout(A_WHILE).is_err());
        assert_eq!(module.counts(), (1, 1, 0));
        // SAFETY: the detach of this binding is pending.
        unsafe { NmrClientDetachProviderComplete(module.binding.load(SeqCst) as HANDLE) };
        assert_eq!(ended.recv_timeout(BOUND), Ok(STATUS_SUCCESS));
        assert_eq!(module.counts(), (1, 1, 1));
    });
}

/// Shows: REG-31, REG-28
#[test]
fn a_provider_that_goes_detaches_its_clients_and_one_that_comes_attaches_them() {
    let sim = Sim::builder().late().build();
    sim.run(|sim| {
        let module = Module::register();
        assert_eq!(module.counts(), (0, 0, 0));
        sim.provider().arrive();
        assert_eq!(module.counts(), (1, 0, 0));
        let socket = module.listener().ok().information;
        sim.provider().depart();
        assert_eq!(module.counts().1, 1);
        // The socket is dead, and closing it works and ends the binding.
        close(socket);
        eventually("the binding ends", || module.counts().2 == 1);
        sim.provider().arrive();
        eventually("the client attaches again", || module.counts().0 == 2);
        close(module.listener().ok().information);
        // SAFETY: the handle is the registration's.
        assert_eq!(unsafe { NmrDeregisterClient(module.handle()) }, STATUS_PENDING);
        // SAFETY: the handle is the registration's.
        assert_eq!(unsafe { NmrWaitForClientDeregisterComplete(module.handle()) }, STATUS_SUCCESS);
        assert_eq!(module.counts(), (2, 2, 2));
    });
}

/// Catches: REG-02, REG-12
#[test]
fn a_call_after_the_detach_and_a_module_that_stays_are_caught() {
    let sim = Sim::new();
    let report = left_behind(&sim, |_| {
        let gone = Module::register();
        // SAFETY: the handle is the registration's.
        assert_eq!(unsafe { NmrDeregisterClient(gone.handle()) }, STATUS_PENDING);
        // SAFETY: the handle is the registration's.
        assert_eq!(unsafe { NmrWaitForClientDeregisterComplete(gone.handle()) }, STATUS_SUCCESS);
        assert_eq!(gone.listener().returned(), STATUS_INVALID_HANDLE);
        // The registrar may call this one at any time.
        std::mem::forget(Module::register());
    });
    assert_reported(&report, "REG-12", "WskSocket");
    assert_reported(&report, "REG-02", "NmrDeregisterClient");
}

/// Deregisters a client that does not detach correctly; its registration ends nevertheless.
fn ends_in_spite_of(change: impl Fn() -> PoolBox<Module> + Send + 'static, calls: &'static [&'static str]) {
    let sim = Sim::new();
    sim.expect("REG-31");
    sim.run(move |sim| {
        let module = change();
        // SAFETY: the handle is the registration's.
        let status = unsafe { NmrDeregisterClient(module.handle()) };
        if status == STATUS_PENDING {
            let ended = await_deregistration(sim, &module);
            assert_eq!(ended.recv_timeout(BOUND), Ok(STATUS_SUCCESS));
        }
        assert_eq!(module.cleaned.load(SeqCst), 1);
        let caught: Vec<_> = sim.violations_of("REG-31").into_iter().map(|found| found.call).collect();
        assert_eq!(caught, calls);
    });
}

/// Catches: REG-31
#[test]
fn a_client_that_answers_a_detach_with_an_error_is_caught() {
    let refusing = || {
        let module = Module::register();
        module.answer.store(STATUS_UNSUCCESSFUL, SeqCst);
        module
    };
    ends_in_spite_of(refusing, &["ClientDetachProvider"]);
}

/// Catches: REG-31
#[test]
fn a_client_without_a_detach_callback_is_caught() {
    ends_in_spite_of(|| Module::register_as(&NPI_WSK_INTERFACE_ID, None), &["ClientDetachProvider"]);
}

/// Catches: REG-31
#[test]
fn completing_a_detach_that_was_not_requested_is_caught() {
    let hasty = || {
        let module = Module::register();
        // SAFETY: the provider recognizes that no detach is pending.
        unsafe { NmrClientDetachProviderComplete(module.binding.load(SeqCst) as HANDLE) };
        module
    };
    ends_in_spite_of(hasty, &["NmrClientDetachProviderComplete"]);
}
