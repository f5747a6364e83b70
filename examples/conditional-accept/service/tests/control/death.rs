//! The listener dies: the service records that, reports it in its status, and listens again at the same
//! address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use gate_service::policy::{Action, Policy};
use gate_service::record::AcceptBy;
use gate_service::status::Phase;
use gate_service::wire::IOCTL_NEXT_RECORDS;
use gate_service::{Control, Parameters, Record};
use nt_user::Failure;
use wsk::Passive;
use wsk_sim::{Completion, Level, Sim};

use crate::client::{connect, is_served};
use crate::io::{File, PATIENCE};
use crate::records::records;
use crate::running::Running;

const UNLOAD: Duration = Duration::from_secs(5);

/// Waits until something holds.
#[track_caller]
fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes WSK abandon the listener. An abandoned one may still be closing.
fn kill(sim: &Sim) {
    let listeners = || {
        let sockets = sim.provider().open_sockets().into_iter();
        sockets.filter(|socket| socket.description.starts_with("Listen")).collect::<Vec<_>>()
    };
    until(|| listeners().len() == 1);
    assert!(sim.provider().kill(listeners()[0].address as *mut _));
}

/// Connects and returns whether the client is served.
fn served(to: SocketAddr) -> bool {
    connect(to).is_ok_and(|stream| is_served(&stream))
}

struct Driver<'a> {
    control: Control,
    service: Running<'a>,
    passive: Passive<'a>,
}

impl<'a> Driver<'a> {
    fn load(accept_by: AcceptBy, passive: Passive<'a>) -> Self {
        let listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
        let parameters =
            Parameters { listen, policy: Policy::new(Action::Accept), accept_by, ..Parameters::default() };
        let control = Control::try_new(&parameters).expect("memory");
        let settings = control.settings().expect("an address");
        let service = Running::start(settings, control.clone(), 2, passive).expect("started");
        Self { control, service, passive }
    }

    fn phase(&self) -> Phase {
        self.control.status().phase
    }

    fn unload(self) {
        self.control.stopping();
        self.service.unload(UNLOAD);
        self.control.shut_down(self.passive);
        assert_eq!(self.control.status().phase, Phase::Stopping);
    }
}

/// Runs `body` on a thread of a machine, for both ways of accepting, inline and later, at both levels.
fn for_each_way(body: impl Fn(&Sim, AcceptBy, Passive<'_>) + Clone + Send + 'static) {
    for (accept_by, completion, level) in [
        (AcceptBy::Irp, Completion::Natural, Level::Passive),
        (AcceptBy::Event, Completion::Natural, Level::Dispatch),
        (AcceptBy::Irp, Completion::Inline, Level::Dispatch),
        (AcceptBy::Event, Completion::Random(3), Level::Random(5)),
    ] {
        let sim = Sim::builder().callbacks(level).completions(level).completion(completion).build();
        let (machine, body) = (sim.clone(), body.clone());
        let thread = sim.thread("driver", move || {
            // SAFETY: the start of a system thread, at PASSIVE_LEVEL, without locks.
            body(&machine, accept_by, unsafe { Passive::assume() });
        });
        match thread.join() {
            Ok(()) => sim.finish().assert_clean(),
            Err(Failure::Panicked(payload)) => std::panic::resume_unwind(payload),
            Err(failure) => panic!("{failure:?}\n{}", sim.finish()),
        }
    }
}

/// The kinds of the records that say whether it listens.
fn told(file: &File) -> Vec<Record> {
    let (_, records) = records(file.call(IOCTL_NEXT_RECORDS, &[], 16 + 64 * 72));
    let of_listening = |record: &Record| {
        matches!(record, Record::Loaded { .. } | Record::Died { .. } | Record::Failed { .. })
    };
    records.into_iter().map(|timed| timed.record).filter(of_listening).collect()
}

#[test]
fn the_service_listens_again_when_its_listener_has_died() {
    for_each_way(|sim, accept_by, passive| {
        let driver = Driver::load(accept_by, passive);
        let local = driver.service.local_addr();
        let file = File::open(&driver.control);
        assert!(served(local));
        let mut expected = vec![Record::Loaded { local }];
        let mut found = Vec::new();
        for _ in 0..3 {
            // Who is served already goes on.
            let mut stays = TcpStream::connect(local).expect("connected");
            stays.set_read_timeout(Some(PATIENCE)).expect("an open socket");
            let mut back = [0; 1];
            stays.write_all(b"x").and_then(|()| stays.read_exact(&mut back)).expect("served");
            kill(sim);
            expected.extend([Record::Died { local }, Record::Loaded { local }]);
            while found.len() < expected.len() {
                found.extend(told(&file));
            }
            assert_eq!(found, expected);
            until(|| driver.phase() == Phase::Listening);
            assert_eq!(driver.control.status().local, local);
            assert!(served(local), "on the new listener");
            stays.write_all(b"y").and_then(|()| stays.read_exact(&mut back)).expect("served on");
        }
        drop(file);
        driver.unload();
    });
}

#[test]
fn the_status_does_not_say_listening_while_nobody_listens() {
    for_each_way(|sim, accept_by, passive| {
        let driver = Driver::load(accept_by, passive);
        let local = driver.service.local_addr();
        let file = File::open(&driver.control);
        assert_eq!(driver.phase(), Phase::Listening);
        // WSK has no memory for another socket until later, so the service has to try again.
        sim.kernel().faults().fail_from(1);
        kill(sim);
        until(|| driver.phase() == Phase::Starting);
        let failed = sim.kernel().faults().injected();
        until(|| sim.kernel().faults().injected() >= failed + 2);
        assert_eq!(driver.phase(), Phase::Starting);
        sim.kernel().faults().clear();
        until(|| driver.phase() == Phase::Listening);
        assert_eq!(told(&file), [Record::Loaded { local }, Record::Died { local }, Record::Loaded { local }]);
        assert!(served(local));
        drop(file);
        driver.unload();
    });
}

/// Another socket takes the address first. The service keeps trying, and unloading stops that.
#[test]
fn unloading_ends_the_attempts_to_listen() {
    for_each_way(|sim, accept_by, passive| {
        let driver = Driver::load(accept_by, passive);
        let local = driver.service.local_addr();
        sim.kernel().faults().fail_from(1);
        kill(sim);
        until(|| driver.phase() == Phase::Starting);
        let mut taken = None;
        until(|| {
            taken = TcpListener::bind(local).ok();
            taken.is_some()
        });
        sim.kernel().faults().clear();
        // Attempts fail for another reason now.
        assert_eq!(driver.phase(), Phase::Starting);
        driver.unload();
        drop(taken);
    });
}
