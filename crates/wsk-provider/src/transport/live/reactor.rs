//! Threads that poll the host's sockets and call their sinks.
//!
//! One thread at a time has the poll state: it polls, and calls the sinks itself, so that the work of a sink
//! for a client needs no thread switch. A sink may run a client's callback, and a client may block in a
//! callback for any time. Therefore a second thread is on standby: if a call lasts, it takes over the poll
//! state, with the rest of the batch, and a new thread goes on standby. The relieved thread ends when its
//! call returns.
//!
//! ```text
//!   standby ──a call lasts──► poll state ──relieved──► ended
//! ```
//!
//! Under load the poll state is left to client threads that wait; see [`donated`].

mod donated;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use mio::event::{Event, Source};
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use parking_lot::{Condvar, Mutex, MutexGuard};

use self::donated::DonatedThreads;
use super::listener::{Acceptor, Progress};
use super::slots::{SLOT_TOKENS, Slots, Target};
use crate::transport::{Complain, Job, Ready, ReadySink, Spawn};

/// Token of the waker, above the tokens of all slots.
const WAKE: Token = Token(SLOT_TOKENS);
/// Maximum number of events per poll.
const EVENTS: usize = 1024;
/// Interval at which a listener retries that found the host out of descriptors.
const STARVED_RETRY: Duration = Duration::from_millis(50);
/// Back-off after a failed poll.
const POLL_RETRY: Duration = Duration::from_millis(50);
/// Duration of a call after which the standby thread takes over the poll state.
const PATIENCE: Duration = Duration::from_millis(10);
/// Maximum number of threads, including those whose call lasts: no client waits in so many calls for another
/// one, and on a busy host a call may last because its thread does not run.
const MOST_THREADS: usize = 64;

/// A Windows host reports once, and again only after a new request: `mio` makes the request when it sees a
/// transfer that would block, for which it has to make the transfer. The owner knows earlier, from a short
/// transfer. Unix hosts are edge-triggered.
pub(super) const REARMS: bool = cfg!(windows);

/// Interval at which some sinks, each in turn, get a spurious report. Wine 8 loses about one report in some
/// thousand connections, and its receiver would wait for ever.
const LOOK: Duration = Duration::from_millis(250);
/// Number of sinks per interval. A useless check takes Wine's server, which all its processes share, about
/// 50 µs, so this uses at most a twentieth of its time.
const LOOKS: usize = 256;
/// State of the poll, which only one thread has at a time.
struct PollState {
    poll: Poll,
    events: Events,
    /// Events of the host that are not delivered yet.
    batch: VecDeque<(Target, Ready)>,
    /// Number of events of the last poll if a donated thread may handle all of them, else 0.
    donatable: usize,
    /// Time of the last spurious reports.
    looked: Instant,
    /// The slot of the next spurious report.
    look_next: usize,
    /// The last poll has failed, and the failure was reported.
    failing: bool,
    complain: Option<Complain>,
}

/// The threads, for [`Reactor::stop`] and the standby thread.
#[derive(Debug, Default)]
struct Workers {
    started: bool,
    /// Numbers of the threads that are polling, on standby, or starting; without relieved threads.
    active: Vec<u64>,
    next: u64,
    /// Number of threads that have not ended, including relieved ones.
    threads: usize,
    /// The thread that has the poll state, with its number.
    leader: Option<(u64, ThreadId)>,
    /// Donated threads that are serving the sockets.
    donated: Vec<ThreadId>,
    /// The standby thread waits for a call to begin, instead of checking from time to time.
    standby_rests: bool,
}

/// The reactor.
pub(super) struct Reactor {
    registry: Registry,
    waker: Waker,
    slots: Mutex<Slots>,
    poll_state: Mutex<PollState>,
    /// Listeners to serve again without a new report of the host.
    again: Mutex<Vec<Arc<Acceptor>>>,
    /// The listener whose streams are being delivered, and the number of that call.
    accepting: Mutex<Option<(u64, Arc<Acceptor>)>>,
    /// Listeners that found the host out of descriptors.
    starving: Mutex<Vec<Arc<Acceptor>>>,
    starved: AtomicBool,
    /// Number of streams.
    streams: AtomicUsize,
    /// Number of streams from which on listeners accept no more.
    most_streams: usize,
    stop: AtomicBool,
    workers: Mutex<Workers>,
    workers_changed: Condvar,
    /// Mirrors [`Workers::standby_rests`] for the polling thread.
    standby_rests: AtomicBool,
    /// No thread was available for standby.
    no_standby: AtomicBool,
    /// Counts the begins and ends of calls: odd during a call. The standby thread ends the count of a call
    /// that it relieves, so that the thread of the call detects that it was relieved.
    calls: AtomicU64,
    spawn: Mutex<Option<Spawn>>,
    donated: DonatedThreads,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// Registration of a source with the reactor; dropping it ends the reports.
pub(super) struct Registration {
    reactor: Arc<Reactor>,
    token: Token,
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Registration").field(&self.token).finish()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // The target is dropped outside the lock: this may drop its owner, which may own another
        // registration.
        let target = self.reactor.slots.lock().remove(self.token);
        drop(target);
    }
}

impl Registration {
    /// Sets the sink, which first gets the current state of `source`.
    pub(super) fn retarget(&self, source: &mut impl Source, sink: Arc<dyn ReadySink>) -> io::Result<()> {
        let former = self.reactor.slots.lock().replace(self.token, Target::Ready(sink));
        drop(former);
        self.reactor.registry.reregister(source, self.token, Interest::READABLE | Interest::WRITABLE)
    }
}

impl Registration {
    /// Requests the next report about `source`: for data, and with `writable` for room.
    pub(super) fn rearm(&self, source: &mut impl Source, writable: bool) -> io::Result<()> {
        let interest = if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.reactor.registry.reregister(source, self.token, interest)
    }
}

/// Permit of a stream. Declared after its socket: dropping it notifies a starved listener that another stream
/// is possible.
#[derive(Debug)]
pub(super) struct StreamPermit(Arc<Reactor>);

impl StreamPermit {
    /// Creates a permit for a new stream.
    pub(super) fn new(reactor: Arc<Reactor>) -> Self {
        reactor.streams.fetch_add(1, Ordering::Relaxed);
        Self(reactor)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.streams.fetch_sub(1, Ordering::Relaxed);
        if self.0.starved.load(Ordering::Relaxed) {
            self.0.wake();
        }
    }
}

impl Reactor {
    /// Creates a reactor whose listeners leave connections to the host while there are `streams` streams.
    pub(super) fn new(streams: Option<usize>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Waker::new(&registry, WAKE)?;
        let poll_state = PollState {
            poll,
            events: Events::with_capacity(EVENTS),
            batch: VecDeque::new(),
            donatable: 0,
            looked: Instant::now(),
            look_next: 0,
            failing: false,
            complain: None,
        };
        Ok(Self {
            registry,
            waker,
            slots: Mutex::default(),
            poll_state: Mutex::new(poll_state),
            again: Mutex::default(),
            accepting: Mutex::default(),
            starving: Mutex::default(),
            starved: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            most_streams: streams.unwrap_or(usize::MAX),
            stop: AtomicBool::new(false),
            workers: Mutex::default(),
            workers_changed: Condvar::new(),
            standby_rests: AtomicBool::new(false),
            no_standby: AtomicBool::new(false),
            calls: AtomicU64::new(0),
            spawn: Mutex::new(None),
            donated: DonatedThreads::default(),
        })
    }

    pub(super) fn start(self: &Arc<Self>, spawn: &Spawn, complain: Complain) -> io::Result<()> {
        if std::mem::replace(&mut self.workers.lock().started, true) {
            return Err(io::Error::other("the network was started before"));
        }
        *self.spawn.lock() = Some(Arc::clone(spawn));
        self.poll_state.lock().complain = Some(complain);
        let begun = self
            .spawn_worker(spawn, "wsk reactor", Self::steer)
            .and_then(|()| self.spawn_worker(spawn, "wsk reactor standby", Self::standby));
        if begun.is_err() {
            // The polling thread ends if it was started, and the state is as before.
            self.disembark();
            self.stop.store(false, Ordering::SeqCst);
            self.spawn.lock().take();
            self.workers.lock().started = false;
        }
        begun
    }

    /// Starts a thread that is counted until its job is dropped, whether it ran or not.
    fn spawn_worker(
        self: &Arc<Self>,
        spawn: &Spawn,
        name: &str,
        body: impl FnOnce(&Arc<Self>, u64) + Send + 'static,
    ) -> io::Result<()> {
        let own = {
            let mut workers = self.workers.lock();
            let own = workers.next;
            workers.next += 1;
            workers.active.push(own);
            workers.threads += 1;
            own
        };
        let guard = WorkerGuard(Arc::clone(self), own);
        let job: Job = Box::new(move || body(&guard.0, own));
        spawn(name, job)
    }

    /// Starts a new standby thread, now or when the poll state is next released.
    fn set_standby(self: &Arc<Self>) {
        let Some(spawn) = self.spawn.lock().clone() else { return };
        if self.spawn_worker(&spawn, "wsk reactor standby", Self::standby).is_err() {
            self.no_standby.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn stop(&self) {
        self.disembark();
        self.spawn.lock().take();
        let complain = self.poll_state.lock().complain.take();
        drop(complain);
        self.forget();
    }

    /// Drops the targets, which have references to the reactor, too. The last call is from the thread whose
    /// call has stopped the reactor or lasted longer.
    fn forget(&self) {
        // Each is dropped without a lock: this may drop its owner, which may own a registration.
        let slots = std::mem::take(&mut *self.slots.lock());
        drop(slots);
        let batch = std::mem::take(&mut self.poll_state.lock().batch);
        drop(batch);
        let accepting = self.accepting.lock().take();
        drop(accepting);
        for waiting in [&self.again, &self.starving] {
            let acceptors = std::mem::take(&mut *waiting.lock());
            drop(acceptors);
        }
    }

    /// Stops the threads, and waits for their end.
    fn disembark(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.donated.rouse();
        let mut workers = self.workers.lock();
        self.wake();
        self.workers_changed.notify_all();
        // Inside a call of the polling thread it can wait only for the others.
        let own = workers.leader.filter(|(_, id)| *id == thread::current().id()).map(|(own, _)| own);
        while workers.active.iter().any(|active| Some(*active) != own) {
            self.workers_changed.wait(&mut workers);
        }
        self.take_leave(&mut workers);
    }

    /// Registers `source` with `sink`.
    pub(super) fn register_sink(
        self: &Arc<Self>,
        source: &mut impl Source,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Registration> {
        self.register(source, Target::Ready(sink), Interest::READABLE | Interest::WRITABLE)
    }

    /// Registers `source` with `acceptor`, which accepts its streams.
    pub(super) fn register_listener(
        self: &Arc<Self>,
        source: &mut impl Source,
        acceptor: Arc<Acceptor>,
    ) -> io::Result<Registration> {
        self.register(source, Target::Accept(acceptor), Interest::READABLE)
    }

    fn register(
        self: &Arc<Self>,
        source: &mut impl Source,
        target: Target,
        interest: Interest,
    ) -> io::Result<Registration> {
        let token = self.slots.lock().insert(target);
        let registration = Registration { reactor: Arc::clone(self), token };
        self.registry.register(source, token, interest)?;
        Ok(registration)
    }

    /// Serves a listener again soon.
    pub(super) fn look_again(&self, acceptor: Arc<Acceptor>) {
        self.again.lock().push(acceptor);
        self.wake();
    }

    /// Returns whether listeners leave further connections to the host.
    pub(super) fn is_full(&self) -> bool {
        self.streams.load(Ordering::Relaxed) >= self.most_streams
    }

    pub(super) fn wake(&self) {
        // It fails only when the poll is gone, and then no thread waits.
        let _ = self.waker.wake();
    }

    /// Polls and calls sinks until stopped or relieved.
    fn steer(self: &Arc<Self>, own: u64) {
        self.workers.lock().leader = Some((own, thread::current().id()));
        loop {
            let mut poll_state = self.poll_state.lock();
            if self.stop.load(Ordering::SeqCst) {
                drop(poll_state);
                return self.forget();
            }
            let Some((target, ready)) = poll_state.batch.pop_front() else {
                if self.no_standby.swap(false, Ordering::Relaxed) {
                    self.set_standby();
                }
                if self.donated.relieve_after(poll_state.donatable) {
                    drop(poll_state);
                    self.rest();
                } else if let Err(error) = self.poll(&mut poll_state, None) {
                    Self::complain(poll_state, &error);
                    thread::sleep(POLL_RETRY);
                }
                continue;
            };
            drop(poll_state);
            let begun = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
            // Either the standby thread sees this count before it rests, or this thread sees it rest.
            if self.standby_rests.load(Ordering::SeqCst) {
                self.wake_standby();
            }
            self.call(target, ready, begun);
            if self.calls.compare_exchange(begun, begun + 1, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                if self.stop.load(Ordering::SeqCst) {
                    self.forget();
                }
                return;
            }
        }
    }

    /// Reports a failure of the host's poll, unless it was already reported.
    fn complain(mut poll_state: MutexGuard<'_, PollState>, error: &io::Error) {
        if std::mem::replace(&mut poll_state.failing, true) {
            return;
        }
        let complain = poll_state.complain.clone();
        drop(poll_state);
        if let Some(complain) = complain {
            complain(&format!(
                "nothing is heard of any socket, and it is tried again: the poll fails with {error}"
            ));
        }
    }

    fn wake_standby(&self) {
        let mut workers = self.workers.lock();
        workers.standby_rests = false;
        self.standby_rests.store(false, Ordering::SeqCst);
        self.workers_changed.notify_all();
    }

    /// Fills the batch, and waits for events for at most `patience`; `None` waits without a timeout.
    fn poll(&self, poll_state: &mut PollState, patience: Option<Duration>) -> io::Result<()> {
        let timeout = if !self.again.lock().is_empty() {
            Some(Duration::ZERO)
        } else if patience.is_some() {
            patience
        } else if self.starved.load(Ordering::Relaxed) {
            Some(STARVED_RETRY)
        } else if REARMS {
            Some(LOOK)
        } else {
            None
        };
        match poll_state.poll.poll(&mut poll_state.events, timeout) {
            Ok(()) => poll_state.failing = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(error),
        }
        {
            let mut slots = self.slots.lock();
            let reported = poll_state.events.iter();
            poll_state
                .batch
                .extend(reported.filter_map(|event| Some((slots.target(event.token())?, ready(event)))));
            if REARMS && poll_state.looked.elapsed() >= LOOK {
                poll_state.looked = Instant::now();
                let look = Ready { readable: true, writable: true, ..Ready::default() };
                let (targets, next) = slots.some(poll_state.look_next, LOOKS);
                poll_state.batch.extend(targets.map(|target| (target, look)));
                poll_state.look_next = next;
            }
            let fit = poll_state.batch.iter().all(|(target, _)| target.accepts_donated_thread());
            poll_state.donatable = if fit { poll_state.batch.len() } else { 0 };
        }
        let retries = self.again.lock().drain(..).map(Target::Accept).collect::<Vec<_>>();
        poll_state.batch.extend(retries.into_iter().map(|target| (target, Ready::default())));
        if self.starved.swap(false, Ordering::Relaxed) {
            let retries = self.starving.lock().drain(..).map(Target::Accept).collect::<Vec<_>>();
            poll_state.batch.extend(retries.into_iter().map(|target| (target, Ready::default())));
        }
        Ok(())
    }

    fn call(&self, target: Target, ready: Ready, begun: u64) {
        let acceptor = match target {
            Target::Ready(sink) => return sink.ready(ready),
            Target::Accept(acceptor) => acceptor,
        };
        *self.accepting.lock() = Some((begun, Arc::clone(&acceptor)));
        let progress = acceptor.accept();
        let done = self.accepting.lock().take_if(|(count, _)| *count == begun);
        drop(done);
        match progress {
            Progress::Done => {}
            Progress::More => self.again.lock().push(acceptor),
            Progress::Starved => {
                self.starving.lock().push(acceptor);
                self.starved.store(true, Ordering::Relaxed);
            }
        }
        if self.calls.load(Ordering::SeqCst) != begun {
            // This thread was relieved and does not poll next; another one may be polling now.
            self.wake();
        }
    }

    /// Waits for a call that lasts, and then takes over the poll state.
    fn standby(self: &Arc<Self>, own: u64) {
        let mut before = self.calls.load(Ordering::SeqCst);
        let mut workers = self.workers.lock();
        loop {
            let stopping = self.stop.load(Ordering::SeqCst);
            // `stop` waits for the polling thread, and a call may never end.
            if stopping && self.calls.load(Ordering::SeqCst).is_multiple_of(2) {
                return;
            }
            if workers.standby_rests && !stopping {
                self.workers_changed.wait(&mut workers);
                continue;
            }
            self.workers_changed.wait_for(&mut workers, PATIENCE);
            let now = self.calls.load(Ordering::SeqCst);
            if now == before && now.is_multiple_of(2) && !stopping {
                workers.standby_rests = true;
                self.standby_rests.store(true, Ordering::SeqCst);
                // A call that began before the flag was visible must not be missed.
                if self.calls.load(Ordering::SeqCst) != now {
                    workers.standby_rests = false;
                    self.standby_rests.store(false, Ordering::SeqCst);
                }
            } else if now == before
                && !now.is_multiple_of(2)
                && (stopping || workers.threads < MOST_THREADS)
                && self.calls.compare_exchange(now, now + 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
            {
                break;
            }
            before = now;
        }
        // `stop` does not wait for the relieved thread: it makes no further call.
        if let Some((relieved, _)) = workers.leader.take() {
            workers.active.retain(|active| *active != relieved);
        }
        drop(workers);
        // Streams that arrived together with the blocked one still have to be accepted.
        if let Some((_, acceptor)) = self.accepting.lock().take() {
            self.again.lock().push(acceptor);
        }
        self.set_standby();
        self.steer(own);
    }
}

/// A thread that is counted until this is dropped.
struct WorkerGuard(Arc<Reactor>, u64);

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let mut workers = self.0.workers.lock();
        workers.active.retain(|active| *active != self.1);
        workers.threads -= 1;
        drop(workers);
        self.0.workers_changed.notify_all();
    }
}

fn ready(event: &Event) -> Ready {
    Ready {
        readable: event.is_readable(),
        writable: event.is_writable(),
        peer_closed: event.is_read_closed(),
        failed: event.is_error(),
        // On Windows, the peer's reset closes the sending direction. Wine has consumed the error then, so
        // that a transfer would find the end of the stream.
        reset: cfg!(windows) && event.is_write_closed(),
        donated: false,
    }
}
