//! Invalid registrations: a block that is in use, and a detachment with a wrong status (contract 3.1, 4.5).

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use wsk_sim::Sim;
use wsk_sim::raw::*;
use wsk_sys::nt::{HANDLE, NTSTATUS};
use wsk_sys::*;

use crate::support::*;

static DISPATCH: WSK_CLIENT_DISPATCH =
    WSK_CLIENT_DISPATCH { Version: MAKE_WSK_VERSION(1, 0), Reserved: 0, WskClientEvent: None };

/// A block has one registration at a time. The first one is not affected.
///
/// Catches: REG-01
#[test]
fn registering_a_block_in_use_is_caught() {
    let sim = Sim::new();
    sim.expect("REG-01").run(|sim| {
        let client = Client::registered(MAKE_WSK_VERSION(1, 0)).unwrap();
        let mut npi = WSK_CLIENT_NPI { ClientContext: ptr::null_mut(), Dispatch: &raw const DISPATCH };
        // SAFETY: both are valid; that the block is in use is the breach this test commits.
        let status = unsafe { WskRegister(&raw mut npi, client.registration()) };
        assert_eq!(status, STATUS_INVALID_PARAMETER);
        assert_eq!(sim.violations_of("REG-01").len(), 1);
        client.capture(WSK_NO_WAIT).unwrap();
        let (listener, address) = client.bound_listener(&Recorder::new());
        let _peer = Peer::connect(address);
        drop(listener.accept().socket());
        listener.close().ok();
        client.release();
        client.deregister();
    });
}

/// Record of the calls of a module's callbacks.
#[derive(Debug, Default)]
struct Module {
    binding: AtomicUsize,
}

unsafe extern "system" fn attach(
    binding: HANDLE,
    context: *mut c_void,
    _instance: *mut NPI_REGISTRATION_INSTANCE,
) -> NTSTATUS {
    // SAFETY: the context is the module, which outlives its registration.
    unsafe { &*context.cast::<Module>() }.binding.store(binding as usize, SeqCst);
    let (mut client, mut functions) = (ptr::null_mut(), ptr::null());
    let dispatch = (&raw const DISPATCH).cast();
    // SAFETY: the table is static, and the call is made inside the attach callback.
    unsafe { NmrClientAttachProvider(binding, context, dispatch, &raw mut client, &raw mut functions) }
}

unsafe extern "system" fn detach(_context: *mut c_void) -> NTSTATUS {
    STATUS_SUCCESS
}

unsafe extern "system" fn detach_wrongly(_context: *mut c_void) -> NTSTATUS {
    STATUS_NOT_SUPPORTED
}

unsafe extern "system" fn clean_up(_context: *mut c_void) {}

/// Registers a module that detaches with this callback.
fn register(detach: Option<NPI_CLIENT_DETACH_PROVIDER_FN>) -> (PoolBox<Module>, HANDLE) {
    let module = PoolBox::new(Module::default());
    let characteristics = NPI_CLIENT_CHARACTERISTICS {
        Version: 0,
        Length: size_of::<NPI_CLIENT_CHARACTERISTICS>() as u16,
        ClientAttachProvider: Some(attach),
        ClientDetachProvider: detach,
        ClientCleanupBindingContext: Some(clean_up),
        ClientRegistrationInstance: NPI_REGISTRATION_INSTANCE {
            Version: 0,
            Size: size_of::<NPI_REGISTRATION_INSTANCE>() as u16,
            NpiId: &raw const NPI_WSK_INTERFACE_ID,
            ModuleId: ptr::null(),
            Number: 0,
            NpiSpecificCharacteristics: ptr::null(),
        },
    };
    let mut handle = ptr::null_mut();
    // SAFETY: the module outlives its registration.
    let status =
        unsafe { NmrRegisterClient(&raw const characteristics, module.as_ptr().cast(), &raw mut handle) };
    assert_eq!(status, STATUS_SUCCESS);
    (module, handle)
}

fn deregister(handle: HANDLE) {
    // SAFETY: the handle is that of a registration, which ends once.
    if unsafe { NmrDeregisterClient(handle) } == STATUS_PENDING {
        // SAFETY: the handle is that of a registration, which ends once.
        unsafe { NmrWaitForClientDeregisterComplete(handle) };
    }
}

/// Waits until a module is attached; the result is its binding.
fn attached(module: &PoolBox<Module>) -> HANDLE {
    // SAFETY: the module is there as long as its box.
    let module = unsafe { &*module.as_ptr() };
    eventually("the module is attached", || module.binding.load(SeqCst) != 0);
    module.binding.load(SeqCst) as HANDLE
}

/// Catches: REG-31
#[test]
fn a_module_that_cannot_detach_or_answers_wrongly_is_caught() {
    for answers in [None, Some(detach_wrongly as NPI_CLIENT_DETACH_PROVIDER_FN)] {
        let sim = Sim::new();
        sim.expect("REG-31").run(move |sim| {
            let (module, handle) = register(answers);
            let binding = attached(&module);
            deregister_wrong(handle, binding, answers.is_some());
            assert!(!sim.violations_of("REG-31").is_empty());
            drop(module);
        });
    }
}

/// Deregisters, and says that the detachment is complete where its answer did not.
fn deregister_wrong(handle: HANDLE, binding: HANDLE, answers: bool) {
    // SAFETY: the handle is that of a registration, which ends once.
    let status = unsafe { NmrDeregisterClient(handle) };
    if status == STATUS_PENDING {
        if answers {
            // SAFETY: the binding is that of the module that was told to detach.
            unsafe { NmrClientDetachProviderComplete(binding) };
        }
        // SAFETY: the binding is that of the module that was told to detach.
        unsafe { NmrWaitForClientDeregisterComplete(handle) };
    }
}

/// Catches: REG-31
#[test]
fn completing_a_detachment_that_was_not_requested_is_caught() {
    let sim = Sim::new();
    sim.expect("REG-31").run(|sim| {
        let (module, handle) = register(Some(detach));
        let binding = attached(&module);
        // SAFETY: the binding is the module's; that it is not being detached is the breach this test commits.
        unsafe { NmrClientDetachProviderComplete(binding) };
        assert_eq!(sim.violations_of("REG-31").len(), 1);
        deregister(handle);
        drop(module);
    });
}
