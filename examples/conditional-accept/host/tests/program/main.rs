//! The program `gate-host`, started as a process, with real clients.
//!
//! The clients come from 127.0.0.1 to 127.0.0.4, which only Linux and Windows have without being asked, and
//! the service is ended by a signal: so these tests run on Linux.
#![cfg(target_os = "linux")]

#[path = "../../../service/tests/support/client.rs"]
mod client;
mod crowd;
mod service;

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::client::{
    assert_refused, connect_from, connect_from_loopback, echo, echo_to_the_end, pattern, reset,
    served_at_last,
};
use self::crowd::connect_all;
use self::service::{Service, program, program_command, run, text};

const BOTH_WAYS: [&str; 2] = ["irp", "event"];

/// A connection from 127.0.0.`last`.
fn connect(last: u8, to: SocketAddr) -> TcpStream {
    connect_from_loopback(last, to).expect("a connection")
}

/// The name under which the service knows a client.
fn name(stream: &TcpStream) -> String {
    stream.local_addr().expect("an address").to_string()
}

/// The positions at which a log has lines for `remote`, by event.
fn position(log: &[Value], event: &str, remote: &str) -> usize {
    let found = log.iter().position(|line| line["event"] == event && line["remote"] == remote);
    found.unwrap_or_else(|| panic!("no {event} of {remote} in {log:#?}"))
}

#[test]
fn accepted_clients_get_every_byte_back() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by]);
        let sent = pattern(3 << 20);
        let stream = connect(1, service.address);
        let remote = name(&stream);
        assert!(echo_to_the_end(&stream, &sent) == sent, "by {by}: other bytes came back");
        service.wait(&[("event", "closed"), ("remote", &remote)]);
        let log = service.stop();

        let inspected = position(&log, "inspect", &remote);
        assert_eq!(log[inspected]["action"], "accept");
        let accepted = position(&log, "accepted", &remote);
        assert_eq!(log[accepted]["by"], by);
        let disconnected = position(&log, "disconnect", &remote);
        assert_eq!(log[disconnected]["kind"], "graceful");
        let closed = position(&log, "closed", &remote);
        assert_eq!(
            (&log[closed]["received"], &log[closed]["sent"]),
            (&sent.len().into(), &sent.len().into())
        );
        assert!(inspected < accepted && accepted < disconnected && disconnected < closed, "{log:#?}");
    }
}

#[test]
fn rejected_clients_are_reset() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by, "--reject", "127.0.0.2"]);
        let refused = connect_from(IpAddr::from([127, 0, 0, 2]), service.address);
        let remote = refused.as_ref().map(name).ok();
        assert_refused(refused);
        echo(&mut connect(1, service.address), b"the others are served");
        if let Some(remote) = remote {
            service.wait(&[("event", "inspect"), ("remote", &remote), ("action", "reject")]);
            assert_eq!(service.seen(&[("event", "accepted"), ("remote", &remote)]), [] as [Value; 0]);
        }
        let log = service.stop();
        assert!(
            log.iter().all(|line| line["event"] != "abort"),
            "a rejected request is not aborted: {log:#?}"
        );
    }
}

/// Clients that take all places of one address keep no other address out, and lose their places when idle.
#[test]
fn silent_clients_of_one_address_keep_nobody_else_out() {
    for by in BOTH_WAYS {
        // More than a loaded machine takes for what happens before the first of them is dropped.
        let limits = ["--max-clients", "6", "--max-per-source", "4", "--idle-timeout", "10000"];
        let service = Service::start(&[&["--accept-by", by][..], &limits].concat());
        let silent: Vec<_> = (0..4).map(|_| connect(2, service.address)).collect();
        for client in &silent {
            service.wait(&[("event", "accepted"), ("remote", &name(client))]);
        }
        let refused = connect_from(IpAddr::from([127, 0, 0, 2]), service.address);
        let remote = refused.as_ref().map(name).ok();
        assert_refused(refused);
        if let Some(remote) = remote {
            service.wait(&[("event", "inspect"), ("remote", &remote), ("reason", "source")]);
        }
        echo(&mut connect(1, service.address), b"the others are served");
        for client in silent {
            service.wait(&[("event", "dropped"), ("remote", &name(&client)), ("reason", "idle")]);
            service.wait(&[("event", "closed"), ("remote", &name(&client))]);
            assert_refused(Ok(client));
        }
        served_at_last(|| connect_from_loopback(2, service.address));
        service.stop();
    }
}

#[test]
fn asked_then_accepted() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by, "--ask", "127.0.0.4", "--verdict-after", "300"]);
        let start = Instant::now();
        let mut stream = connect(4, service.address);
        let remote = name(&stream);
        // Sent while the request is pended; it comes back when it was decided.
        echo(&mut stream, b"may I?");
        assert!(start.elapsed() >= Duration::from_millis(300), "answered before it was decided");
        drop(stream);
        service.wait(&[("event", "closed"), ("remote", &remote)]);
        let log = service.stop();

        let inspected = position(&log, "inspect", &remote);
        assert_eq!(log[inspected]["action"], "pend");
        let decided = log.iter().position(|line| line["event"] == "verdict").expect("a verdict");
        assert_eq!((&log[decided]["id"], &log[decided]["action"]), (&log[inspected]["id"], &"accept".into()));
        let accepted = position(&log, "accepted", &remote);
        assert!(inspected < decided && decided < accepted, "{log:#?}");
    }
}

#[test]
fn asked_then_rejected() {
    let service = Service::start(&["--default", "ask", "--verdict", "reject", "--verdict-after", "50"]);
    let stream = connect(4, service.address);
    let inspected = service.wait(&[("event", "inspect"), ("remote", &name(&stream)), ("action", "pend")]);
    assert_refused(Ok(stream));
    service.wait(&[("event", "verdict"), ("id", text(&inspected, "id")), ("action", "reject")]);
    let log = service.stop();
    assert!(log.iter().all(|line| line["event"] != "accepted" && line["event"] != "abort"), "{log:#?}");
}

#[test]
fn asked_then_given_up() {
    for by in BOTH_WAYS {
        let service =
            Service::start(&["--accept-by", by, "--ask", "127.0.0.3/31", "--verdict-after", "600000"]);
        for give_up in [reset as fn(TcpStream), drop] {
            let stream = connect(3, service.address);
            let inspected =
                service.wait(&[("event", "inspect"), ("remote", &name(&stream)), ("action", "pend")]);
            give_up(stream);
            service.wait(&[("event", "abort"), ("id", text(&inspected, "id"))]);
        }
        let log = service.stop();
        assert!(log.iter().all(|line| line["event"] != "accepted" && line["event"] != "verdict"), "{log:#?}");
    }
}

/// Withdrawal and verdict race: each request has exactly one end.
#[test]
fn giving_up_while_it_is_decided() {
    const CLIENTS: usize = 200;
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by, "--default", "ask", "--verdict-after", "2"]);
        for n in 0..CLIENTS {
            let stream = connect(4, service.address);
            std::thread::sleep(Duration::from_micros(n as u64 * 20));
            reset(stream);
        }
        service.wait_for(CLIENTS, &[("event", "inspect")]);
        echo(&mut connect(1, service.address), b"still there");
        let log = service.stop();
        let count = |event: &str| log.iter().filter(|line| line["event"] == event).count();
        assert_eq!(count("inspect"), CLIENTS + 1);
        assert_eq!(count("abort") + count("accepted"), count("inspect"), "{log:#?}");
        assert_eq!(count("closed"), count("accepted"), "{log:#?}");
    }
}

#[test]
fn the_most_specific_network_wins() {
    let options =
        ["--default", "reject", "--accept", "127.0.0.0/8", "--reject", "127.0.0.0/30", "--ask", "127.0.0.2"];
    let service = Service::start(&options);
    for (last, action) in [(1, "reject"), (2, "pend"), (3, "reject"), (4, "accept")] {
        let remote =
            connect_from(IpAddr::from([127, 0, 0, last]), service.address).map(|stream| name(&stream));
        if let Ok(remote) = remote {
            service.wait(&[("event", "inspect"), ("remote", &remote), ("action", action)]);
        }
    }
    service.stop();
}

#[test]
fn resets_are_abortive_disconnects() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by]);
        let mut stream = connect(1, service.address);
        let remote = name(&stream);
        echo(&mut stream, b"so far so good");
        reset(stream);
        service.wait(&[("event", "disconnect"), ("remote", &remote), ("kind", "abortive")]);
        service.wait(&[("event", "closed"), ("remote", &remote)]);
        service.stop();
    }
}

/// Clients that go away while much is on its way in both directions.
#[test]
fn resets_in_the_middle_of_much_data() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by]);
        let bytes = pattern(1 << 20);
        let clients: Vec<_> = (0..20)
            .map(|_| {
                let stream = connect(2, service.address);
                let remote = name(&stream);
                stream.set_nonblocking(true).expect("an open socket");
                // As much as fits, without reading any of it back.
                let mut left = &bytes[..];
                while !left.is_empty()
                    && let Ok(sent) = (&stream).write(left)
                {
                    left = &left[sent..];
                }
                reset(stream);
                remote
            })
            .collect();
        for remote in clients {
            service.wait(&[("event", "closed"), ("remote", &remote)]);
        }
        echo(&mut connect(1, service.address), b"still there");
        service.stop();
    }
}

#[test]
fn what_is_owed_is_sent_after_the_client_ended_its_sending() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by]);
        let mut stream = connect(1, service.address);
        let sent = pattern(100_000);
        stream.write_all(&sent).expect("sent");
        stream.shutdown(Shutdown::Write).expect("ended");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).expect("echoed, then ended");
        assert!(back == sent, "{} of {} bytes came back", back.len(), sent.len());
        service.stop();
    }
}

#[test]
fn unload_does_not_wait_for_clients() {
    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by, "--ask", "127.0.0.4", "--verdict-after", "600000"]);
        let mut idle = connect(1, service.address);
        echo(&mut idle, b"idle");
        // Sends for ever and never reads: the service owes it more than the connection can hold.
        let greedy = connect(2, service.address);
        greedy.set_nonblocking(true).expect("an open socket");
        let bytes = pattern(1 << 20);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(200) {
            let _ = (&greedy).write(&bytes);
        }
        let pended = connect(4, service.address);
        service.wait(&[("event", "inspect"), ("remote", &name(&pended))]);
        let log = service.stop();
        let accepted = log.iter().filter(|line| line["event"] == "accepted").count();
        let closed = log.iter().filter(|line| line["event"] == "closed").count();
        assert_eq!((accepted, closed), (2, 2), "{log:#?}");
        // The idle client sees an end, whichever kind.
        assert!(matches!(idle.read(&mut [0; 1]), Ok(0) | Err(_)));
    }
}

#[test]
fn seconds_end_the_service() {
    let service = Service::start(&["--seconds", "1"]);
    let mut stream = connect(1, service.address);
    echo(&mut stream, b"not for long");
    service.ended_within(Duration::from_secs(1 + 5));
}

#[test]
fn ipv6_is_served_too() {
    let gate = ["--default", "reject", "--accept", "::1", "--log", "json"];
    let service = match TcpListener::bind((Ipv6Addr::LOCALHOST, 0)) {
        Ok(_) => Service::spawn(program_command().args(["--listen", "[::1]:0"]).args(gate)),
        Err(error) => return eprintln!("this machine has no IPv6: {error}"),
    };
    assert_eq!(service.address.ip(), IpAddr::from(Ipv6Addr::LOCALHOST));
    let mut stream = connect_from(Ipv6Addr::LOCALHOST.into(), service.address).expect("a connection");
    echo(&mut stream, b"six");
    service.wait(&[("event", "accepted"), ("remote", &name(&stream))]);
    service.stop();
}

#[test]
fn text_is_for_people_and_plain_when_it_is_no_terminal() {
    let output = run(&["--listen", "127.0.0.1:0", "--seconds", "0"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    let words: Vec<_> = text.lines().map(|line| line.split_whitespace().nth(1).unwrap_or_default()).collect();
    assert_eq!(words, ["loaded", "unloaded"], "{text}");
    assert!(text.contains("violations 0, leaks 0") && !text.contains('\x1b'), "{text:?}");
}

#[test]
fn wrong_options_are_explained() {
    for (options, part) in [
        (&["--listen", "nowhere"][..], "nowhere"),
        (&["--accept", "10.0.0.0/40"], "10.0.0.0/40"),
        (&["--default", "maybe"], "ask"),
        (&["--verdict", "ask"], "reject"),
        (&["--verdict-after", "soon"], "soon"),
        (&["--seconds", "-1"], "-1"),
        (&["--accept", "10.0.0.1", "--reject", "10.0.0.1"], "both actions"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let output = run(options);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{options:?}: {said}");
        assert!(said.contains("error") && said.contains(part), "{options:?}: {said}");
    }
}

/// An address that cannot be had: status 1, one line that says which and why, nothing leaked.
#[test]
fn addresses_that_cannot_be_had_are_explained() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    for address in [&*taken, "192.0.2.1:0", "[2001:db8::1]:0", "[fe80::1%999]:0"] {
        let output = run(&["--listen", address]);
        let said = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{address}: {said}");
        assert!(said.starts_with("error: ") && said.contains(address) && said.contains("STATUS_"), "{said}");
        assert!(!said.contains("STATUS_UNSUCCESSFUL"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_service() {
    let mut child = program_command()
        .args(["--listen", "127.0.0.1:0", "--log", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    let mut loaded = vec![0; 256];
    let length = stdout.read(&mut loaded).expect("a line");
    let loaded: Value = serde_json::from_slice(&loaded[..length]).expect("JSON");
    drop(stdout);
    let address: SocketAddr = text(&loaded, "local").parse().expect("an address");
    // Something to print. The service may be going down already, as soon as it prints the inspection.
    let _ = connect_from(IpAddr::from([127, 0, 0, 1]), address);
    let output = child.wait_with_output().expect("a status");
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output"), "{said}");
}

/// A program that is stopped while its output is not read does not wait for the reader, and reports that.
#[test]
fn a_reader_that_does_not_read_keeps_nobody_waiting() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut child = program_command()
        .args(["--listen", "127.0.0.1:0", "--log", "json", "--reject", "127.0.0.3"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    // As small as the host makes it.
    let room = rustix::pipe::fcntl_setpipe_size(&stdout, 4096).expect("a pipe");
    let mut loaded = vec![0; 256];
    let length = stdout.read(&mut loaded).expect("a line");
    let loaded: Value = serde_json::from_slice(&loaded[..length]).expect("JSON");
    let address: SocketAddr = text(&loaded, "local").parse().expect("an address");
    // Each gives more than fifty bytes to print.
    for _ in 0..room / 50 + 100 {
        assert_refused(connect_from(IpAddr::from([127, 0, 0, 3]), address));
    }
    let start = Instant::now();
    kill_process(Pid::from_child(&child), Signal::TERM).expect("the process is there");
    let output = child.wait_with_output().expect("a status");
    let said = String::from_utf8(output.stderr).expect("text");
    assert!(start.elapsed() < Duration::from_secs(30), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.ends_with(
            "standard output: the reader has stopped reading; the last records were not printed\n"
        ),
        "{said}"
    );
    drop(stdout);
}

/// With few file descriptors left some of the many clients are refused, and nothing else happens.
#[test]
fn too_many_clients_for_the_machine_are_refused() {
    for by in BOTH_WAYS {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "ulimit -n 64 && exec \"$0\" \"$@\""]).arg(program());
        let service =
            Service::spawn(command.args(["--listen", "127.0.0.1:0", "--log", "json", "--accept-by", by]));
        let clients: Vec<_> = (0..200)
            .filter_map(|_| connect_from(IpAddr::from([127, 0, 0, 2]), service.address).ok())
            .collect();
        assert!(clients.len() > 20, "{}", clients.len());
        drop(clients);
        served_at_last(|| connect_from_loopback(1, service.address));
        service.stop();
    }
}

#[test]
fn ten_thousand_clients_at_once() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    const CLIENTS: usize = 10_000;
    let mut limit = getrlimit(Resource::Nofile);
    // Here and, inherited, in the service: a descriptor per client and some more.
    if limit.maximum.is_some_and(|maximum| maximum < CLIENTS as u64 + 100) {
        return eprintln!("this machine allows {:?} descriptors only", limit.maximum);
    }
    limit.current = limit.maximum.map(|maximum| maximum.min(4 * CLIENTS as u64)).or(Some(4 * CLIENTS as u64));
    setrlimit(Resource::Nofile, limit).expect("the limit can be raised up to the maximum");

    for by in BOTH_WAYS {
        let service = Service::start(&["--accept-by", by]);
        let from = (0..CLIENTS).map(|n| IpAddr::from([127, 0, 0, 1 + (n % 4) as u8]));
        let clients = connect_all(from, service.address);
        for mut stream in &clients {
            stream.write_all(b"here").expect("the client is served");
        }
        for mut stream in &clients {
            let mut back = [0; 4];
            stream.read_exact(&mut back).expect("the client is served");
            assert_eq!(&back, b"here");
        }
        drop(clients);
        service.wait_for(CLIENTS, &[("event", "closed")]);
        let log = service.stop();
        let count = |event: &str| log.iter().filter(|line| line["event"] == event).count();
        assert_eq!((count("inspect"), count("accepted"), count("abort")), (CLIENTS, CLIENTS, 0));
    }
}
