//! Extension interfaces: registration, and enabling of their events (contract 4.17, 4.18).
//!
//! Windows has published none, so these tests bring their own: an alarm clock.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::EventsOnBasic;
use wsk_sim::wsk_provider::{Attachment, Extension};
use wsk_sim::{Completion, Sim};
use wsk_sys::nt::NTSTATUS;
use wsk_sys::*;

use crate::support::*;

static ALARM: NPIID = NPIID { data1: 0xA1A2, data2: 1, data3: 2, data4: [3; 8] };
static UNKNOWN: NPIID = NPIID { data1: 0xA1A2, data2: 1, data3: 2, data4: [4; 8] };

/// An event of the alarm clock. On a connection this number is `WSK_EVENT_RECEIVE`, and no WSK event
/// elsewhere.
const RINGS: u32 = WSK_EVENT_RECEIVE;
/// Another one, whose number no WSK event has.
const STOPS: u32 = 0x1;

/// The provider's side.
#[derive(Debug)]
struct Alarm {
    events: u32,
    attached: Mutex<Vec<Arc<Attachment>>>,
}

/// The functions of the extension: one.
#[repr(C)]
struct AlarmFunctions {
    wind: unsafe extern "system" fn(context: *mut c_void, request: *mut c_void) -> NTSTATUS,
}

static FUNCTIONS: AlarmFunctions = AlarmFunctions { wind };

/// Winds the clock; meanwhile it runs `*request`, a `&dyn Fn()`, if there is one.
unsafe extern "system" fn wind(context: *mut c_void, request: *mut c_void) -> NTSTATUS {
    // SAFETY: the context is that of this extension, whose attachments stay as long as the provider.
    let attachment = unsafe { &*context.cast::<Attachment>() };
    let call = match attachment.enter("Wind") {
        Ok(call) => call,
        Err(status) => return status,
    };
    if !request.is_null() {
        // SAFETY: the test passes such a pointer.
        let meanwhile = unsafe { *request.cast::<&dyn Fn()>() };
        meanwhile();
    }
    drop(call);
    STATUS_SUCCESS
}

/// The callbacks of a client.
#[repr(C)]
struct AlarmCallbacks {
    rings: Option<unsafe extern "system" fn(context: *mut c_void, time: usize)>,
    stops: Option<unsafe extern "system" fn(context: *mut c_void, time: usize)>,
}

static CALLBACKS: AlarmCallbacks = AlarmCallbacks { rings: Some(rings), stops: None };

impl Extension for Alarm {
    fn id(&self) -> NPIID {
        ALARM
    }

    fn events(&self) -> u32 {
        self.events
    }

    fn dispatch(&self) -> *const c_void {
        (&raw const FUNCTIONS).cast()
    }

    unsafe fn has_callback(&self, dispatch: *const c_void, event: u32) -> bool {
        // SAFETY: the client passes a table of this extension.
        let callbacks = unsafe { dispatch.cast::<AlarmCallbacks>().as_ref() };
        callbacks.is_some_and(|table| if event == RINGS { table.rings } else { table.stops }.is_some())
    }

    fn attached(&self, attachment: &Arc<Attachment>) {
        self.attached.lock().unwrap().push(Arc::clone(attachment));
    }
}

impl Alarm {
    /// Brings an alarm clock with these events to the machine.
    fn on(sim: &Sim, events: u32) -> Arc<Self> {
        let alarm = Arc::new(Self { events, attached: Mutex::default() });
        let own = Arc::clone(&alarm);
        sim.provider().configure(|config| config.extensions.push(own));
        alarm
    }

    /// The socket that was the last to register.
    fn last(&self) -> Arc<Attachment> {
        Arc::clone(self.attached.lock().unwrap().last().expect("a socket has registered"))
    }
}

/// Lets the clock ring; true if the client was called.
fn ring(attachment: &Attachment, time: usize) -> bool {
    let called = attachment.raise(RINGS, "Rings", |context, dispatch| {
        // SAFETY: the client has passed this table, which is static.
        let callback = unsafe { (*dispatch.cast::<AlarmCallbacks>()).rings }.expect("a callback");
        // SAFETY: the context is the one of the same client.
        unsafe { callback(context, time) };
    });
    called.is_some()
}

/// State of the client: calls of the callback, and its action.
#[derive(Default)]
struct Ears {
    heard: AtomicUsize,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

unsafe extern "system" fn rings(context: *mut c_void, time: usize) {
    // SAFETY: the client has registered with its ears, which it keeps as long as its socket.
    let ears = unsafe { &*context.cast::<Ears>() };
    ears.heard.store(time, Ordering::SeqCst);
    let meanwhile = ears.meanwhile.lock().unwrap().take();
    if let Some(meanwhile) = meanwhile {
        meanwhile();
    }
}

/// The bytes of a `WSK_EXTENSION_CONTROL_IN`.
fn control_in(id: *const NPIID, ears: *mut Ears) -> Vec<u8> {
    let fields =
        [id.expose_provenance(), ears.expose_provenance(), (&raw const CALLBACKS).expose_provenance()];
    const { assert!(size_of::<WSK_EXTENSION_CONTROL_IN>() == 3 * size_of::<usize>()) };
    fields.iter().flat_map(|field| field.to_ne_bytes()).collect()
}

fn registration(id: *const NPIID, ears: &PoolBox<Ears>) -> Control {
    let room = size_of::<WSK_EXTENSION_CONTROL_OUT>();
    Control::ioctl(SIO_WSK_REGISTER_EXTENSION, Some(&control_in(id, ears.as_ptr())), Some(room))
}

/// Registers for the alarm clock; what comes back is its context and its function table.
#[track_caller]
fn register(socket: &Socket, ears: &PoolBox<Ears>) -> (*mut c_void, &'static AlarmFunctions) {
    let answer = socket.control_now(&registration(&raw const ALARM, ears));
    assert_eq!(answer.status, STATUS_SUCCESS);
    let (context, dispatch) = answer.output.split_at(size_of::<usize>());
    let pointer = |bytes: &[u8]| {
        ptr::with_exposed_provenance_mut::<c_void>(usize::from_ne_bytes(bytes.try_into().unwrap()))
    };
    let functions = pointer(dispatch).cast::<AlarmFunctions>();
    assert_eq!(functions.cast_const(), &raw const FUNCTIONS);
    (pointer(context), &FUNCTIONS)
}

/// An event control with the alarm clock's identifier.
fn events(mask: u32) -> Control {
    Control { input: Some(event_control(&ALARM, mask)), ..Control::events(mask) }
}

fn basic(client: &Client) -> Socket {
    client.open(&SocketOptions::new(Category::Basic)).socket()
}

/// Shows: EVT-04
#[test]
fn a_basic_socket_switches_the_events_of_its_extension() {
    for_each_mode(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        let alarm = Alarm::on(sim, RINGS);
        let socket = basic(&client);
        // Not before it has registered.
        assert_eq!(socket.enable(RINGS), STATUS_INVALID_PARAMETER);
        register(&socket, &ears);
        let clock = alarm.last();
        assert!(!ring(&clock, 1), "it is off at first");
        for time in [2, 3] {
            assert_eq!(socket.control_now(&events(RINGS)).status, STATUS_SUCCESS);
            assert!(ring(&clock, time));
            assert_eq!(ears.heard.load(Ordering::SeqCst), time);
            assert_eq!(socket.control_now(&events(RINGS | WSK_EVENT_DISABLE)).status, STATUS_SUCCESS);
            assert!(!ring(&clock, 9));
        }
        assert_eq!(socket.control_now(&events(RINGS)).status, STATUS_SUCCESS);
        socket.close().ok();
        assert!(!ring(&clock, 9), "it ends with the socket");
        assert_eq!(ears.heard.load(Ordering::SeqCst), 3);
    });
}

/// Shows: EVT-04, EVT-06
#[test]
fn an_extension_without_events_gives_a_basic_socket_none() {
    for_each_choice(
        |behaviours, choice: EventsOnBasic| behaviours.events_on_basic = choice,
        |sim, choice| {
            let client = Client::new();
            let ears = PoolBox::new(Ears::default());
            Alarm::on(sim, 0);
            let socket = basic(&client);
            register(&socket, &ears);
            assert_eq!(socket.control_now(&events(RINGS)).status, choice.status());
            assert_eq!(socket.enable(RINGS), choice.status());
        },
    );
}

/// Shows: EVT-17, EVT-18
#[test]
fn disabling_an_extensions_event_in_progress_waits_as_with_any_other() {
    for_each_mode(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        let alarm = Alarm::on(sim, RINGS);
        let socket = basic(&client);
        register(&socket, &ears);
        let clock = alarm.last();
        for with_irp in [true, false] {
            assert_eq!(socket.control_now(&events(RINGS)).status, STATUS_SUCCESS);
            let disabling = Arc::new(Mutex::new(None));
            let (inside, own) = (socket.clone(), Arc::clone(&disabling));
            *ears.meanwhile.lock().unwrap() = Some(Box::new(move || {
                if with_irp {
                    let request = inside.control(&events(RINGS | WSK_EVENT_DISABLE)).pends();
                    assert!(!request.is_completed(), "the callback is running");
                    *own.lock().unwrap() = Some(request);
                } else {
                    let answer = inside.control_now(&events(RINGS | WSK_EVENT_DISABLE));
                    assert_eq!(answer.status, STATUS_EVENT_PENDING);
                }
            }));
            assert!(ring(&clock, 1));
            if let Some(request) = disabling.lock().unwrap().take() {
                request.ok();
            }
            assert!(!ring(&clock, 2));
        }
    });
}

/// Shows: CLOSE-07
#[test]
fn a_close_waits_for_the_callbacks_of_extensions() {
    for_each_mode(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        let alarm = Alarm::on(sim, RINGS);
        let socket = basic(&client);
        register(&socket, &ears);
        assert_eq!(socket.control_now(&events(RINGS)).status, STATUS_SUCCESS);
        let closing = Arc::new(Mutex::new(None));
        let (inside, own) = (socket.clone(), Arc::clone(&closing));
        *ears.meanwhile.lock().unwrap() = Some(Box::new(move || {
            let request = inside.close().pends();
            assert!(!request.is_completed(), "the callback is running");
            *own.lock().unwrap() = Some(request);
        }));
        assert!(ring(&alarm.last(), 1));
        closing.lock().unwrap().take().expect("a close").ok();
    });
}

/// The events of an extension and those of WSK have their bits apart, though the numbers be the same.
///
/// Shows: EVT-01
#[test]
fn the_identifier_says_whose_event_a_bit_means() {
    for_each_mode(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        let alarm = Alarm::on(sim, RINGS);
        let recorder = Recorder::new();
        let (connection, peer) = accepted_pair(&client, &recorder);
        register(&connection, &ears);
        assert_eq!(connection.control_now(&events(RINGS)).status, STATUS_SUCCESS);
        assert!(ring(&alarm.last(), 1));
        peer.send(b"x");
        assert_eq!(connection.receive_all(1), b"x");
        assert_eq!(recorder.entered(Kind::Receive), 0);
        assert_eq!(connection.enable(WSK_EVENT_RECEIVE), STATUS_SUCCESS);
        assert_eq!(connection.control_now(&events(RINGS | WSK_EVENT_DISABLE)).status, STATUS_SUCCESS);
        peer.send(b"y");
        assert_eq!(recorder.receive_bytes(1), b"y");
        assert!(!ring(&alarm.last(), 2));
    });
}

/// Catches: EVT-25
#[test]
fn an_extensions_event_under_another_identifier_is_caught() {
    let sim = Sim::new();
    sim.expect("EVT-25");
    sim.run(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        let alarm = Alarm::on(sim, STOPS | RINGS);
        let recorder = Recorder::new();
        let (connection, _peer) = accepted_pair(&client, &recorder);
        register(&connection, &ears);
        assert_eq!(connection.control_now(&events(RINGS)).status, STATUS_SUCCESS);
        assert!(ring(&alarm.last(), 1));
        assert!(sim.violations_of("EVT-25").is_empty());
        // WSK's own identifier with the extension's bit, and that of an extension without a registration.
        assert_eq!(connection.enable(STOPS), STATUS_INVALID_PARAMETER);
        assert_eq!(sim.violations_of("EVT-25").len(), 1);
        let other = Control { input: Some(event_control(&UNKNOWN, STOPS)), ..Control::events(STOPS) };
        assert_eq!(connection.control_now(&other).status, STATUS_NOT_SUPPORTED);
        assert_eq!(sim.violations_of("EVT-25").len(), 2);
        let unregistered = basic(&client);
        assert_eq!(unregistered.control_now(&events(STOPS)).status, STATUS_NOT_SUPPORTED);
        assert_eq!(sim.violations_of("EVT-25").len(), 3);
        assert_caught(sim, "EVT-25", "WskControlSocket");
    });
}

/// Catches: EVT-10, EVT-28, EVT-34
#[test]
fn the_rules_of_switching_hold_for_extensions_too() {
    let sim = Sim::new();
    sim.expect("EVT-10").expect("EVT-28").expect("EVT-34");
    sim.run(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        Alarm::on(sim, STOPS | RINGS);
        let socket = basic(&client);
        register(&socket, &ears);
        socket.control(&events(RINGS)).ok();
        assert_advised(sim, "EVT-10", "WskControlSocket");
        let both = events(RINGS | STOPS | WSK_EVENT_DISABLE);
        assert_eq!(socket.control_now(&both).status, STATUS_INVALID_PARAMETER);
        assert_caught(sim, "EVT-28", "WskControlSocket");
        assert_eq!(socket.control_now(&events(STOPS)).status, STATUS_INVALID_PARAMETER);
        assert_caught(sim, "EVT-34", "WskControlSocket");
        assert_eq!(socket.control_now(&events(0x8)).status, STATUS_INVALID_PARAMETER, "no event of it");
    });
}

/// Shows: IOC-05
#[test]
fn an_unknown_extension_is_not_supported() {
    for_each_mode(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        for known in [false, true] {
            if known {
                Alarm::on(sim, RINGS);
            }
            for category in [
                Category::Basic,
                Category::Listen,
                Category::Connection,
                Category::Datagram,
                Category::Stream,
            ] {
                let socket = client.open(&SocketOptions::new(category)).socket();
                let unknown = socket.control_now(&registration(&raw const UNKNOWN, &ears));
                assert_eq!(unknown.status, STATUS_NOT_SUPPORTED);
                let alarm = socket.control_now(&registration(&raw const ALARM, &ears));
                assert_eq!(alarm.status, if known { STATUS_SUCCESS } else { STATUS_NOT_SUPPORTED });
            }
        }
    });
}

/// Catches: IOC-06
#[test]
fn a_registration_that_is_not_as_it_should_be_is_caught() {
    let sim = Sim::new();
    sim.expect("IOC-06");
    sim.run(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        Alarm::on(sim, RINGS);
        let right = registration(&raw const ALARM, &ears);
        let input = right.input.clone().expect("an input");
        let wrong = [
            Control { input: None, ..right.clone() },
            Control { input: Some(input[..16].to_vec()), ..right.clone() },
            Control { output: None, ..right.clone() },
            Control { output: Some(8), ..right.clone() },
            Control { input: Some(control_in(ptr::null(), ears.as_ptr())), ..right.clone() },
        ];
        for (count, control) in wrong.iter().enumerate() {
            let socket = basic(&client);
            assert_eq!(socket.control_now(control).status, STATUS_INVALID_PARAMETER, "{control:?}");
            assert_eq!(sim.violations_of("IOC-06").len(), count + 1, "{control:?}");
        }
        // And with an IRP it is done nevertheless.
        let socket = basic(&client);
        socket.control(&right).ok();
        assert_eq!(sim.violations_of("IOC-06").len(), wrong.len() + 1);
        assert_caught(sim, "IOC-06", "WskControlSocket");
    });
}

/// Catches: CLOSE-01, CLOSE-13
#[test]
fn an_extensions_function_is_a_call_on_the_socket() {
    let sim = Sim::builder().completion(Completion::Inline).build();
    sim.expect("CLOSE-01").expect("CLOSE-13");
    sim.run(|sim| {
        let client = Client::new();
        let ears = PoolBox::new(Ears::default());
        Alarm::on(sim, RINGS);
        let socket = basic(&client);
        let (context, functions) = register(&socket, &ears);
        // SAFETY: the context is the extension's own.
        assert_eq!(unsafe { (functions.wind)(context, ptr::null_mut()) }, STATUS_SUCCESS);
        let close = || drop(socket.close());
        let mut meanwhile: &dyn Fn() = &close;
        // SAFETY: the context is the extension's own; the request is the closure that the function runs.
        unsafe { (functions.wind)(context, (&raw mut meanwhile).cast()) };
        assert_caught(sim, "CLOSE-01", "WskCloseSocket");
        // SAFETY: the context is the extension's own; the request is the closure that the function runs; the
        // provider knows sockets that are closed.
        let late = unsafe { (functions.wind)(context, ptr::null_mut()) };
        assert_eq!(late, STATUS_FILE_FORCED_CLOSED);
        assert_caught(sim, "CLOSE-13", "Wind");
    });
}
