//! The threads that wait for the host's sockets and tell their owners.
//!
//! One thread at a time has the poll state: it polls, and calls the sinks itself, so that what a sink does
//! for a client costs no change of thread. A sink may run a client's callback, and a client may hold a
//! callback open for as long as it likes. Therefore a second thread keeps watch: when one call lasts, it
//! takes the poll state, and what waits in the batch with it, and a new thread keeps watch. The thread that
//! was relieved ends when its call returns.
//!
//! ```text
//!   watch ──a call lasts──► poll state ──relieved──► ended
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

/// The token of the waker; slots never reach it.
const WAKE: Token = Token(SLOT_TOKENS);
/// Events taken from the host at a time.
const EVENTS: usize = 1024;
/// Count: how often a listener tries again that found the host out of descriptors and heard of none becoming
/// free.
const STARVED_RETRY: Duration = Duration::from_millis(50);
/// Time: how long to wait before the host is polled again after that has failed.
const POLL_RETRY: Duration = Duration::from_millis(50);
/// Time: how long a call may last before the watch takes the poll state.
const PATIENCE: Duration = Duration::from_millis(10);
/// Largest number of threads, those included whose call lasts: no client waits in so many calls
/// for one more, and on a busy host a call may last because its thread does not run.
const MOST_THREADS: usize = 64;

/// A Windows host reports once, and again only when asked: `mio` asks when it sees a transfer that would
/// block, for which it has to make the transfer. The owner knows sooner, from one that came out short. Unix
/// hosts report by edge.
pub(super) const REARMS: bool = cfg!(windows);

/// Count: how often some are told to look, whatever was reported, each in turn. Wine 8 loses a report now and
/// then, one in some thousand connections, and whoever waits for it would wait for ever.
const LOOK: Duration = Duration::from_millis(250);
/// Number of at a time. A look in vain takes Wine's server, which all its processes share, some 50 µs; so
/// this keeps it busy for a twentieth of its time at the most.
const LOOKS: usize = 256;
/// State of the poll, which one thread has at a time.
struct PollState {
    poll: Poll,
    events: Events,
    /// Reported by the host, not yet told.
    batch: VecDeque<(Target, Ready)>,
    /// Number of events of the last poll if a donated thread may handle all of them, else 0.
    donatable: usize,
    /// Time at which some were last told to look.
    looked: Instant,
    /// The slot whose turn it is next.
    look_next: usize,
    /// The last poll has failed, and so it was told.
    failing: bool,
    complain: Option<Complain>,
}

/// The threads, as [`Reactor::stop`] and the watch see them.
#[derive(Debug, Default)]
struct Workers {
    started: bool,
    /// The numbers of the threads at the poll state, on watch, or about to be; one that was relieved is not
    /// among them.
    guard: Vec<u64>,
    next: u64,
    /// All that have not ended, also those that were relieved.
    threads: usize,
    /// The thread that has the poll state, with its number.
    leader: Option<(u64, ThreadId)>,
    /// Donated threads that are serving the sockets.
    donated: Vec<ThreadId>,
    /// The watch waits for a sign of life, instead of looking from time to time.
    watch_rests: bool,
}

/// The reactor.
pub(super) struct Reactor {
    registry: Registry,
    waker: Waker,
    slots: Mutex<Slots>,
    poll_state: Mutex<PollState>,
    /// Listeners to look at again though the host reported nothing new.
    again: Mutex<Vec<Arc<Acceptor>>>,
    /// The listener whose streams are being delivered, and the count of that call.
    accepting: Mutex<Option<(u64, Arc<Acceptor>)>>,
    /// Listeners that found no free descriptor.
    starving: Mutex<Vec<Arc<Acceptor>>>,
    starved: AtomicBool,
    /// Number of streams.
    streams: AtomicUsize,
    /// With so many, listeners take no more.
    most_streams: usize,
    stop: AtomicBool,
    workers: Mutex<Workers>,
    crew_changed: Condvar,
    /// Mirrors [`Workers::watch_rests`] for the polling thread.
    watch_rests: AtomicBool,
    /// There was no thread to be had for the watch.
    unwatched: AtomicBool,
    /// Counts the beginnings and ends of calls: odd while one lasts. The watch ends the count of a call it
    /// relieves, so that the thread which made the call finds its own count gone.
    calls: AtomicU64,
    spawn: Mutex<Option<Spawn>>,
    donated: DonatedThreads,
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("workers", &self.workers).finish_non_exhaustive()
    }
}

/// A place in the reactor; dropping it ends the reports.
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
        // The target is dropped outside the lock: with it may go its owner, which may own another watch.
        let target = self.reactor.slots.lock().remove(self.token);
        drop(target);
    }
}

impl Registration {
    /// Reports to `sink` from now on, beginning with the present state of `source`.
    pub(super) fn retarget(&self, source: &mut impl Source, sink: Arc<dyn ReadySink>) -> io::Result<()> {
        let former = self.reactor.slots.lock().replace(self.token, Target::Ready(sink));
        drop(former);
        self.reactor.registry.reregister(source, self.token, Interest::READABLE | Interest::WRITABLE)
    }
}

impl Registration {
    /// Asks for the next report about `source`: that there is data, and with `writable` that there is room.
    pub(super) fn rearm(&self, source: &mut impl Source, writable: bool) -> io::Result<()> {
        let interest = if writable { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.reactor.registry.reregister(source, self.token, interest)
    }
}

/// The place of a stream among those there may be. Declared after the socket it goes with: dropping it tells
/// a starved listener that there is room for another one.
#[derive(Debug)]
pub(super) struct StreamPermit(Arc<Reactor>);

impl StreamPermit {
    /// A place for one more stream, which is there already.
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
    /// A reactor whose listeners leave connections to the host while there are `streams` of them.
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
            crew_changed: Condvar::new(),
            watch_rests: AtomicBool::new(false),
            unwatched: AtomicBool::new(false),
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
            .and_then(|()| self.spawn_worker(spawn, "wsk reactor watch", Self::standby));
        if begun.is_err() {
            // The polling thread goes if it was to be had, and all is as before.
            self.disembark();
            self.stop.store(false, Ordering::SeqCst);
            self.spawn.lock().take();
            self.workers.lock().started = false;
        }
        begun
    }

    /// Starts a thread that counts as guard until its job is dropped, run or not.
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
            workers.guard.push(own);
            workers.threads += 1;
            own
        };
        let guard = WorkerGuard(Arc::clone(self), own);
        let job: Job = Box::new(move || body(&guard.0, own));
        spawn(name, job)
    }

    /// Has a new thread keep watch, now or when the poll state is free next.
    fn set_watch(self: &Arc<Self>) {
        let Some(spawn) = self.spawn.lock().clone() else { return };
        if self.spawn_worker(&spawn, "wsk reactor watch", Self::standby).is_err() {
            self.unwatched.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn stop(&self) {
        self.disembark();
        self.spawn.lock().take();
        let complain = self.poll_state.lock().complain.take();
        drop(complain);
        self.forget();
    }

    /// Forgets whom to tell: they hold the reactor, as it holds them. The last to do so is the thread whose
    /// call has stopped the reactor, or outlasted it.
    fn forget(&self) {
        // Each is dropped without a lock held: with it may go its owner, which may own a watch.
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

    /// Has the threads leave, and waits for that.
    fn disembark(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.donated.rouse();
        let mut workers = self.workers.lock();
        self.wake();
        self.crew_changed.notify_all();
        // From inside a call of the polling thread only the others can be waited for.
        let own = workers.leader.filter(|(_, id)| *id == thread::current().id()).map(|(own, _)| own);
        while workers.guard.iter().any(|guard| Some(*guard) != own) {
            self.crew_changed.wait(&mut workers);
        }
        self.take_leave(&mut workers);
    }

    /// Reports about `source` to `sink` from now on.
    pub(super) fn watch(
        self: &Arc<Self>,
        source: &mut impl Source,
        sink: Arc<dyn ReadySink>,
    ) -> io::Result<Registration> {
        self.register(source, Target::Ready(sink), Interest::READABLE | Interest::WRITABLE)
    }

    /// Lets `acceptor` take the streams that arrive at `source`.
    pub(super) fn watch_listener(
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
        let watch = Registration { reactor: Arc::clone(self), token };
        self.registry.register(source, token, interest)?;
        Ok(watch)
    }

    /// Looks at a listener again soon.
    pub(super) fn look_again(&self, acceptor: Arc<Acceptor>) {
        self.again.lock().push(acceptor);
        self.wake();
    }

    /// Returns whether listeners leave further connections to the host.
    pub(super) fn is_full(&self) -> bool {
        self.streams.load(Ordering::Relaxed) >= self.most_streams
    }

    pub(super) fn wake(&self) {
        // It fails only when the poll is gone, and then nobody waits.
        let _ = self.waker.wake();
    }

    /// Polls and calls until stopped or relieved.
    fn steer(self: &Arc<Self>, own: u64) {
        self.workers.lock().leader = Some((own, thread::current().id()));
        loop {
            let mut poll_state = self.poll_state.lock();
            if self.stop.load(Ordering::SeqCst) {
                drop(poll_state);
                return self.forget();
            }
            let Some((target, ready)) = poll_state.batch.pop_front() else {
                if self.unwatched.swap(false, Ordering::Relaxed) {
                    self.set_watch();
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
            // Either the watch sees this count before it rests, or it is seen to rest here.
            if self.watch_rests.load(Ordering::SeqCst) {
                self.rouse_watch();
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

    /// Tells that the host's poll has failed, unless that is known.
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

    fn rouse_watch(&self) {
        let mut workers = self.workers.lock();
        workers.watch_rests = false;
        self.watch_rests.store(false, Ordering::SeqCst);
        self.crew_changed.notify_all();
    }

    /// Fills the batch, and waits for that up to `patience`, which may be without end.
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
            // This thread does not poll next, as it usually does: it was relieved, and another one may be
            // polling now.
            self.wake();
        }
    }

    /// Looks out for a call that lasts, and takes the poll state then.
    fn standby(self: &Arc<Self>, own: u64) {
        let mut before = self.calls.load(Ordering::SeqCst);
        let mut workers = self.workers.lock();
        loop {
            let stopping = self.stop.load(Ordering::SeqCst);
            // Whoever stops the reactor waits for the polling thread, and a call may never end.
            if stopping && self.calls.load(Ordering::SeqCst).is_multiple_of(2) {
                return;
            }
            if workers.watch_rests && !stopping {
                self.crew_changed.wait(&mut workers);
                continue;
            }
            self.crew_changed.wait_for(&mut workers, PATIENCE);
            let now = self.calls.load(Ordering::SeqCst);
            if now == before && now.is_multiple_of(2) && !stopping {
                workers.watch_rests = true;
                self.watch_rests.store(true, Ordering::SeqCst);
                // A call that was begun before the flag could be seen must not go unwatched.
                if self.calls.load(Ordering::SeqCst) != now {
                    workers.watch_rests = false;
                    self.watch_rests.store(false, Ordering::SeqCst);
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
        // The thread that is relieved is no longer waited for: it makes no further call.
        if let Some((relieved, _)) = workers.leader.take() {
            workers.guard.retain(|guard| *guard != relieved);
        }
        drop(workers);
        // Streams that came in the same go as the one that is held up are still to be taken.
        if let Some((_, acceptor)) = self.accepting.lock().take() {
            self.again.lock().push(acceptor);
        }
        self.set_watch();
        self.steer(own);
    }
}

/// A thread that counts as guard until this is dropped.
struct WorkerGuard(Arc<Reactor>, u64);

impl Drop for WorkerGuard {
    fn drop(&mut self) {
        let mut workers = self.0.workers.lock();
        workers.guard.retain(|guard| *guard != self.1);
        workers.threads -= 1;
        drop(workers);
        self.0.crew_changed.notify_all();
    }
}

fn ready(event: &Event) -> Ready {
    Ready {
        readable: event.is_readable(),
        writable: event.is_writable(),
        peer_closed: event.is_read_closed(),
        failed: event.is_error(),
        // What closes the way out on Windows, without the owner's doing. Wine has seen the error then, so
        // that a transfer would find the end of the stream.
        reset: cfg!(windows) && event.is_write_closed(),
        donated: false,
    }
}
