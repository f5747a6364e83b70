//! Outcomes that do not depend on how fast the machine is: early completions, and the return of an
//! inspection.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use wsk_sim::raw::*;
use wsk_sim::wsk_provider::behaviours::{Retransmission, Truncated};
use wsk_sim::{Completion, FaultPoint, Sim};
use wsk_sys::nt;
use wsk_sys::*;

use crate::link::{Link, await_backlog};
use crate::support::*;

/// Longer than any patience with a thread that is about to return.
const LONG: Duration = Duration::from_millis(100);

/// Keeps the thread busy, like a host that runs other threads first.
fn be_busy() {
    let begin = Instant::now();
    while begin.elapsed() < LONG {
        std::hint::spin_loop();
    }
}

/// The thread of the callback returns slowly. The client has decided after the last action of its callback,
/// and can do no more.
#[test]
fn an_inspection_that_is_slow_to_return_makes_no_decision_early() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (sender, receiver) = mpsc::channel();
        events.on_inspect(move |event| {
            sender.send(event.id()).expect("the test listens");
            be_busy();
            WskInspectPend
        });
        let (listener, address) = client.conditional_listener(&events);
        for action in [WskInspectAccept, WskInspectReject] {
            let peer = Peer::connect(address);
            let id = receiver.recv_timeout(BOUND).expect("an inspection");
            listener.inspect_complete(id, action).ok();
            if action == WskInspectReject {
                peer.expect_reset();
            } else {
                assert_eq!(listener.accept().socket().remote_address(), peer.local());
            }
        }
    });
}

/// Covers a decision without a wait for the return: it is kept until the callback has returned.
#[test]
fn a_decision_that_may_be_early_waits_for_the_return_of_its_inspection() {
    Sim::builder().provider(|config| config.return_patience = Duration::ZERO).build().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (sender, receiver) = mpsc::channel();
        events.on_inspect(move |event| {
            sender.send(event.id()).expect("the test listens");
            be_busy();
            WskInspectPend
        });
        let (listener, address) = client.conditional_listener(&events);
        let peer = Peer::connect(address);
        let id = receiver.recv_timeout(BOUND).expect("an inspection");
        listener.inspect_complete(id, WskInspectAccept).ok();
        assert_eq!(listener.accept().socket().remote_address(), peer.local());
    });
}

/// Covers a decision inside another callback.
#[test]
fn a_callback_may_decide_for_another_that_is_slow_to_return() {
    Sim::new().run(|_| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let (sender, receiver) = mpsc::channel();
        let (slow, deciding) = (std::sync::Mutex::new(Some(sender)), std::sync::Mutex::new(receiver));
        let (decided, decision) = mpsc::channel();
        let handle = listener.clone();
        events.on_inspect(move |event| {
            if let Some(sender) = slow.lock().unwrap().take() {
                sender.send(event.id()).expect("the other one listens");
                be_busy();
                return WskInspectPend;
            }
            let id = deciding.lock().unwrap().recv().expect("the first one tells");
            decided.send(handle.inspect_complete(id, WskInspectReject)).expect("the test listens");
            WskInspectReject
        });
        let first = Peer::connect(address);
        let second = Peer::connect(address);
        decision.recv_timeout(BOUND).expect("a decision").ok();
        first.expect_reset();
        second.expect_reset();
        // The closure keeps the listener.
        events.inspecting(WskInspectReject);
    });
}

/// Catches: ICMP-13
#[test]
fn a_decision_inside_of_its_own_inspection_is_caught_at_once() {
    let sim = Sim::new();
    sim.expect("ICMP-12").run(|sim| {
        let client = Client::new();
        let events = Recorder::new();
        let (listener, address) = client.conditional_listener(&events);
        let handle = listener.clone();
        events.on_inspect(move |event| {
            let early = handle.inspect_complete(event.id(), WskInspectAccept);
            assert_eq!(early.returned(), STATUS_INVALID_DEVICE_STATE);
            WskInspectReject
        });
        Peer::connect(address).expect_reset();
        events.inspect();
        assert_caught(sim, "ICMP-12", "WskInspectComplete");
        events.inspecting(WskInspectReject);
        listener.close().ok();
    });
}

/// Calls that move data or close were seen to pend on Windows. A driver that reads its IRP after an inline
/// success, and whose completion routine has freed it by then, works there.
#[test]
fn what_windows_pends_is_pended_by_default() {
    Sim::new().run(|_| {
        let link = Link::new();
        let (buffer, one) = (Buffer::of(b"x"), Buffer::new(1));
        let pends = |request: Request| assert_eq!(request.ok().returned, STATUS_PENDING);
        pends(Request::new().send(&link.socket, &buffer, 0));
        pends(Request::new().send_ex(&link.socket, &buffer, &[], 0));
        assert_eq!(link.peer.receive(2), b"xx");
        link.peer.send(b"yy");
        await_backlog(&link.socket, 2);
        pends(Request::new().receive(&link.socket, &one, 0));
        pends(Request::new().receive_ex(&link.socket, &one, 0));
        // At the end there is an outcome at once as well.
        link.peer.half_close();
        assert_eq!(link.socket.receive_some(1), b"");
        pends(Request::new().receive(&link.socket, &one, 0));
        pends(Request::new().disconnect(&link.socket, None, 0));
        pends(Request::new().disconnect(&link.socket, None, WSK_FLAG_ABORTIVE));
        pends(link.socket.close());

        let [datagram, other] = [(); 2].map(|()| {
            let datagram = link.client.datagram(&Recorder::new());
            datagram.bind_localhost();
            datagram
        });
        let to = other.local_address();
        let sent = Buffer::of(b"datagram");
        pends(Request::new().send_to(&datagram, &sent, Some(to), &[], 0));
        pends(Request::new().send_messages(
            &datagram,
            BufferList::new(std::slice::from_ref(&sent)),
            Some(to),
            0,
        ));
        // All but the first few are there when they are asked for.
        for _ in 0..64 {
            pends(datagram.send_to(b"datagram", to));
        }
        for _ in 0..66 {
            let into = Buffer::new(8);
            pends(Request::new().receive_from(&other, &into, ReceiveFromOptions::default()).0);
            assert_eq!(into.read(), b"datagram");
        }
        pends(datagram.close());
        pends(other.close());

        let (listener, _) = link.client.bound_listener(&Recorder::new());
        pends(listener.close());
        let unbound = link.client.connection(&Recorder::new());
        pends(unbound.close());
        pends(link.client.open(&SocketOptions::new(Category::Basic)).socket().close());
    });
}

/// Covers requests that have data although they do not end with success.
#[test]
fn a_truncated_datagram_is_pended_by_default() {
    let truncated = Truncated::STATUS_BUFFER_OVERFLOW;
    Sim::builder().behaviours(|behaviours| behaviours.truncated = truncated).build().run(move |_| {
        let client = Client::new();
        let [datagram, other] = [(); 2].map(|()| client.datagram(&Recorder::new()));
        datagram.bind_localhost();
        let to = other.bind_localhost();
        for _ in 0..64 {
            datagram.send_to(b"datagram", to).ok();
        }
        for _ in 0..64 {
            let into = Buffer::new(4);
            let done = Request::new().receive_from(&other, &into, ReceiveFromOptions::default()).0.wait();
            assert_eq!((done.returned, done.status), (STATUS_PENDING, truncated.status()));
            assert_eq!((done.information, into.read()), (4, b"data".to_vec()));
        }
    });
}

/// A thread that has submitted a request need not wait for it, or for anything else.
#[test]
fn what_is_pended_completes_whatever_its_thread_does_next() {
    Sim::new().run(|sim| {
        let link = Link::new();
        // This thread is known to wait for what it starts.
        link.socket.send(b"x").ok();
        for _ in 0..3 {
            let send = link.socket.send(b"x");
            eventually("one completes while its thread is busy", || send.is_completed());
        }
        let sends = [(); 64].map(|()| link.socket.send(b"x"));
        eventually("all complete while their thread is busy", || sends.iter().all(Request::is_completed));
        // Nor need it be there any more.
        let socket = link.socket.clone();
        let thread = sim.thread("goes", move || {
            socket.send(b"x").ok();
            socket.send(b"x")
        });
        let last = thread.join().expect("it ends");
        eventually("the last one completes", || last.is_completed());
        assert_eq!(link.peer.receive(70), [b'x'; 70]);
    });
}

/// An early completion precedes the return of its call, also if the routine takes long.
#[test]
fn an_early_completion_is_early_however_slow_its_routine_is() {
    Sim::builder().completion(Completion::PendEarly).build().run(|_| {
        let client = Client::new();
        let listener = client.listener(&Recorder::new());
        let bind = Request::new().hook(|_, _| be_busy()).bind(&listener, LOCALHOST, 0);
        let done = bind.ok();
        assert!(done.before_return && !done.same_thread, "{done:?}");
        assert_eq!(done.returned, STATUS_PENDING);
    });
}

/// A spin lock, and what is done under it.
struct Locked(Box<UnsafeCell<usize>>);

// SAFETY: the kernel's functions may be called for one lock from any thread.
unsafe impl Send for Locked {}
// SAFETY: the kernel's functions may be called for one lock from any thread.
unsafe impl Sync for Locked {}

impl Locked {
    fn with<R>(&self, body: impl FnOnce() -> R) -> R {
        // SAFETY: the lock stays where it is, and zero is a free one.
        let former = unsafe { nt::KeAcquireSpinLockRaiseToDpc(self.0.get()) };
        let result = body();
        // SAFETY: this thread has the lock, and `former` is the level from before.
        unsafe { nt::KeReleaseSpinLock(self.0.get(), former) };
        result
    }
}

/// A thread that holds a spin lock does not wait for a routine that may need it: the request completes after
/// the call.
#[test]
fn an_early_completion_is_late_where_the_caller_holds_a_lock() {
    Sim::builder().completion(Completion::PendEarly).build().run(|_| {
        let link = Link::new();
        let lock = Arc::new(Locked(Box::new(UnsafeCell::new(0))));
        let needed = Arc::clone(&lock);
        let buffer = Buffer::of(b"x");
        let request = Request::new().hook(move |_, _| needed.with(|| ()));
        let request = lock.with(|| request.send(&link.socket, &buffer, 0));
        let done = request.ok();
        assert!(!done.before_return && !done.same_thread, "{done:?}");
        assert_eq!(link.peer.receive(1), b"x");
    });
}

/// A completion routine that makes a call is not waited for by that call.
#[test]
fn an_early_completion_is_late_inside_of_a_completion_routine() {
    Sim::builder().completion(Completion::PendEarly).build().run(|_| {
        let link = Link::new();
        let (sender, receiver) = mpsc::channel();
        let socket = link.socket.clone();
        let request = Request::new().hook(move |_, _| {
            let begin = Instant::now();
            let inner = socket.send(b"y");
            assert!(begin.elapsed() < BOUND / 4, "no thread waits for itself");
            sender.send(inner).expect("the test listens");
        });
        request.send(&link.socket, &Buffer::of(b"x"), 0).ok();
        let done = receiver.recv_timeout(BOUND).expect("the routine has run").ok();
        assert!(!done.before_return, "{done:?}");
        assert_eq!(link.peer.receive(2), b"xy");
    });
}

unsafe extern "system" fn run_body(context: *mut c_void) {
    // SAFETY: the context is the body that `on_a_system_thread` has boxed, and the routine runs once.
    let body = unsafe { Box::from_raw(context.cast::<Box<dyn FnOnce() + Send>>()) };
    body();
}

/// Runs `body` on a thread of the driver, which the kernel may donate while it waits, and waits for its end.
fn on_a_system_thread(body: impl FnOnce() + Send + 'static) {
    let body: Box<Box<dyn FnOnce() + Send>> = Box::new(Box::new(body));
    let context = Box::into_raw(body).cast();
    // SAFETY: the routine takes the context over.
    let handle = unsafe { system_thread(run_body, context) };
    let mut thread = null_mut();
    // SAFETY: the handle is open, and the object has a place.
    let status = unsafe {
        nt::ObReferenceObjectByHandle(
            handle,
            nt::THREAD_ALL_ACCESS,
            null_mut(),
            0,
            &raw mut thread,
            null_mut(),
        )
    };
    assert_eq!(status, STATUS_SUCCESS);
    // SAFETY: the handle is open, and is not used any more.
    assert_eq!(unsafe { nt::ZwClose(handle) }, STATUS_SUCCESS);
    // SAFETY: the thread object is referenced.
    let status = unsafe { nt::KeWaitForSingleObject(thread, nt::EXECUTIVE, nt::KERNEL_MODE, 0, null_mut()) };
    assert_eq!(status, STATUS_SUCCESS);
    // SAFETY: this is the reference taken above.
    unsafe { nt::ObfDereferenceObject(thread) };
}

/// Sends one datagram after the other until it is stopped.
fn send_on(socket: &Socket, to: std::net::SocketAddr, stop: &Arc<AtomicBool>, sent: &mpsc::Sender<Request>) {
    let (socket, stop, sent) = (socket.clone(), Arc::clone(stop), sent.clone());
    let (again, sends) = (socket.clone(), sent.clone());
    let request = Request::new().hook(move |_, _| {
        if !stop.load(Ordering::SeqCst) {
            send_on(&again, to, &stop, &sent);
        }
    });
    let _ = sends.send(request.send_to(&socket, &Buffer::of(b"x"), Some(to), &[], 0));
}

/// A thread that waits completes the requests that are ready, and no more: routines that submit again do not
/// delay it.
#[test]
fn a_thread_that_waits_is_not_kept_by_routines_that_submit_again() {
    Sim::new().run(|_| {
        let client = Client::new();
        let recorder = Recorder::new();
        let (socket, idle) = (client.datagram(&recorder), Link::new());
        socket.bind(LOCALHOST).ok();
        let (_host, to) = host_datagram();
        let stop = Arc::new(AtomicBool::new(false));
        let (sent, requests) = mpsc::channel();
        on_a_system_thread(move || {
            let never = Request::new().receive(&idle.socket, &Buffer::new(1), 0).pends();
            // The first wait marks the thread as one that waits.
            assert!(never.wait_up_to(Duration::from_millis(1)).is_none());
            send_on(&socket, to, &stop, &sent);
            assert!(never.wait_up_to(Duration::from_millis(50)).is_none());
            stop.store(true, Ordering::SeqCst);
        });
        for request in requests {
            request.ok();
        }
    });
}

/// A completion routine does not know the results of earlier calls of the thread that runs it.
#[test]
fn a_routine_that_a_waiting_thread_runs_is_not_blamed_for_what_the_thread_knows() {
    Sim::new().run(|sim| {
        let (link, idle) = (Link::new(), Link::new());
        let provider = sim.provider().clone();
        on_a_system_thread(move || {
            let never = Request::new().receive(&idle.socket, &Buffer::new(1), 0).pends();
            assert!(never.wait_up_to(Duration::from_millis(1)).is_none());
            let (sender, receiver) = mpsc::channel();
            let (sender, again) = (std::sync::Mutex::new(sender), link.socket.clone());
            let hook = move |_, _| sender.lock().unwrap().send(again.send(b"z")).expect("the test listens");
            let first = Request::new().hook(hook).send(&link.socket, &Buffer::of(b"x"), 0);
            assert!(provider.kill(link.socket.raw()));
            link.socket.send(b"y").fails(STATUS_FILE_FORCED_CLOSED);
            first.ok();
            receiver.recv().expect("the routine has run").fails(STATUS_FILE_FORCED_CLOSED);
        });
    });
}

/// A client may decide under a lock that its inspection callback takes: the callback is not repeated inside
/// the call then.
#[test]
fn a_repetition_does_not_wait_for_a_lock_of_the_caller() {
    let sim =
        Sim::builder().behaviours(|behaviours| behaviours.retransmission = Retransmission::InspectedAgain);
    sim.build().run(|sim| {
        sim.choose(FaultPoint::RetransmissionDuringComplete, 1);
        let lock = Arc::new(Locked(Box::new(UnsafeCell::new(0))));
        let client = Client::new();
        let events = Recorder::new();
        let (sender, receiver) = mpsc::channel();
        let its = Arc::clone(&lock);
        events.on_inspect(move |event| {
            its.with(|| ());
            let _ = sender.send(event.id());
            WskInspectPend
        });
        let (listener, address) = client.conditional_listener(&events);
        let peer = Peer::connect(address);
        let id = receiver.recv_timeout(BOUND).expect("an inspection");
        lock.with(|| listener.inspect_complete(id, WskInspectReject)).ok();
        peer.expect_reset();
    });
}
