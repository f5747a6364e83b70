//! Slices, and retained data that is sent on without a copy.

use wsk::{Buffer, Connection, Events, Handlers, IoBuf, Listener, RetainedData, Slice, Status};
use wsk_sim::raw::{End, Peer};
use wsk_sim::{Completion, FaultPoint, Sim};

use crate::support::*;

fn bytes(bytes: &[u8]) -> Buffer {
    Buffer::try_from_slice(bytes).unwrap()
}

/// Parts of a buffer are received into and sent, the rest of it stays as it was.
///
/// Prevents: SND-08, RCV-14, LIFE-09
#[test]
fn parts_of_a_buffer_are_received_and_sent() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer) = connected(&listener);
        let buffer = Buffer::try_with_capacity(16).unwrap();
        peer.send(b"\0\x05hello and more");
        let (received, head) = wait(connection.receive_exact(buffer.slice(0..2).unwrap()));
        received.unwrap();
        let (received, body) = wait(connection.receive_exact(head.into_inner().slice(2..7).unwrap()));
        received.unwrap();
        let buffer = body.into_inner();
        assert_eq!(&buffer[..], b"\0\x05hello");
        let (sent, part) = wait(connection.send(buffer.slice(3..6).unwrap()));
        assert_eq!((sent, part.len(), part.range()), (Ok(3), 3, 3..6));
        assert_eq!(peer.receive(3), b"ell");
        // A part of a part.
        let (sent, part) = wait(connection.send(Slice::of(part, 1..3).unwrap()));
        assert_eq!(sent, Ok(2));
        assert_eq!(peer.receive(2), b"ll");
        assert_eq!(&part.into_inner().into_inner()[..], b"\0\x05hello");
        // A part that was given up is the first that the next receive gets.
        let mut rest = Vec::new();
        while rest.len() < 9 {
            let slice = Buffer::try_with_capacity(8).unwrap().slice(4..8).unwrap();
            let mut dropped = Box::pin(connection.receive(slice));
            if let std::task::Poll::Ready((received, slice)) = poll(&mut dropped) {
                rest.extend_from_slice(&slice.into_inner()[4..4 + received.unwrap()]);
                continue;
            }
            drop(dropped);
            let (received, slice) = wait(connection.receive(Buffer::try_with_capacity(3).unwrap()));
            assert_eq!(received, Ok(slice.len()));
            rest.extend_from_slice(&slice);
        }
        assert_eq!(rest, b" and more");
        drop((connection, listener));
        driver.unload();
    });
}

/// Parts that are not there are refused before anything is asked of WSK.
///
/// Prevents: SND-08
#[test]
fn parts_that_are_not_there_are_refused() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, _peer) = connected(&listener);
        let refused = |result: wsk::Result<Slice<Buffer>>| {
            assert_eq!(result.unwrap_err().status(), Status::INVALID_BUFFER_SIZE);
        };
        refused(bytes(b"four").slice(0..5));
        #[expect(clippy::reversed_empty_ranges, reason = "this is what is refused")]
        refused(bytes(b"four").slice(3..2));
        assert!(Slice::of(bytes(b"four"), 0..5).is_err());
        // Room that holds no bytes yet cannot be sent.
        let room = Buffer::try_with_capacity(8).unwrap().slice(0..4).unwrap();
        let (sent, _) = wait(connection.send(room));
        assert_eq!(sent.unwrap_err().status(), Status::INVALID_BUFFER_SIZE);
        // Nothing is sent and received of nothing.
        assert_eq!(wait(connection.send(bytes(b"four").slice(4..4).unwrap())).0, Ok(0));
        assert_eq!(wait(connection.receive(bytes(b"four").slice(4..4).unwrap())).0, Ok(0));
        drop((connection, listener));
        driver.unload();
    });
}

/// A connection that retains what it receives.
fn retaining(listener: &Listener) -> (Connection, Peer, Told<RetainedData>) {
    let (tell, told) = channel();
    let retains = on_receive(move |data| match data.retain() {
        Ok((taken, retained)) => {
            tell.say(retained);
            taken
        }
        Err((_, data)) => data.accept(),
    });
    let accept = listener.accept_with(Handlers::new().receive(retains));
    let peer = Peer::connect(listener.local_addr());
    let connection = wait(accept).unwrap();
    connection.enable(Events::RECEIVE).unwrap();
    (connection, peer, told)
}

/// Data that one connection receives is sent on another, without a copy, however the indication is cut, and
/// in parts.
///
/// Prevents: RCVE-12, RCVE-13, RCVE-20, SND-08, LIFE-13
#[test]
fn retained_data_is_sent_on() {
    for_each_mode(|sim| {
        for shape in 0..5 {
            sim.choose(FaultPoint::IndicationShape, shape);
            let driver = Driver::start();
            let listener = driver.listen();
            let (from, sender, told) = retaining(&listener);
            let (mut to, receiver) = connected(&listener);
            for text in [&b"a text of some length, which is cut into parts"[..], b"x", b"yz"] {
                sender.send(text);
                let mut relayed = 0;
                while relayed < text.len() {
                    for piece in told.next().into_pieces().unwrap() {
                        let (length, half) = (piece.len(), piece.len() / 2);
                        let (sent, first) = wait(to.send(Slice::of(piece, 0..half).unwrap()));
                        assert_eq!(sent, Ok(half));
                        let second = Slice::of(first.into_inner(), half..length).unwrap();
                        assert_eq!(wait(to.send(second)).0, Ok(length - half));
                        relayed += length;
                    }
                }
                assert_eq!(receiver.receive(text.len()), text);
            }
            drop((from, to, listener));
            driver.unload();
        }
    });
}

/// Posts pieces of one connection on another whose peer does not read, until one of them stays there.
fn stuff(
    from: &Peer,
    told: &Told<RetainedData>,
    to: &mut wsk::SendHalf,
) -> Vec<std::pin::Pin<Box<wsk::Posted<wsk::RetainedPiece>>>> {
    let mut stuck = Vec::new();
    // More than a peer takes that does not read; then a piece that stays.
    let mut filling = Box::pin(to.post({
        let mut much = Buffer::try_with_capacity(15 << 20).unwrap();
        much.set_len(15 << 20).unwrap();
        much
    }));
    assert!(poll(&mut filling).is_pending());
    drop_later(filling);
    from.send(b"piece");
    for piece in told.next().into_pieces().unwrap() {
        let mut posted = Box::pin(to.post(piece));
        assert!(poll(&mut posted).is_pending(), "the peer does not read");
        stuck.push(posted);
    }
    stuck
}

/// Lets a send go on.
fn drop_later(send: std::pin::Pin<Box<wsk::Posted>>) {
    std::pin::Pin::into_inner(send).detach();
}

/// Two connections that relay to each other, whose peers do not read any more, close, and the client unloads:
/// each piece that is being sent keeps the other connection from closing, so both are reset first.
///
/// Prevents: RCVE-19, RCVE-20, CLOSE-01, CLOSE-13, DISC-23
#[test]
fn connections_that_relay_to_each_other_close() {
    for unloads in [false, true] {
        for_each_mode(move |sim| {
            let driver = Driver::start();
            let listener = driver.listen();
            let (one, one_peer, one_told) = retaining(&listener);
            let (other, other_peer, other_told) = retaining(&listener);
            let (_one_receives, mut one_sends) = one.into_split();
            let (_other_receives, mut other_sends) = other.into_split();
            let stuck_on_other = stuff(&one_peer, &one_told, &mut other_sends);
            let stuck_on_one = stuff(&other_peer, &other_told, &mut one_sends);
            let controls = [one_sends.control(), other_sends.control()];
            let closing = sim.thread("closing", move || {
                if !unloads {
                    for close in controls.each_ref().map(wsk::Control::close) {
                        wait(close);
                    }
                }
                drop(listener);
                driver.unload();
            });
            // The sends end before the closes begin, and each piece goes with its send.
            for sent in stuck_on_one.into_iter().chain(stuck_on_other) {
                assert!(wait(sent).0.is_err());
            }
            closing.join().unwrap();
            drop((one_peer, other_peer));
        });
    }
}

/// A connection with pieces that closes is reset at once; its socket goes when the last piece does.
///
/// Prevents: RCVE-19, CLOSE-13, DISC-27
#[test]
fn a_connection_with_pieces_is_reset_when_it_closes() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer, told) = retaining(&listener);
        peer.send(b"kept");
        let mut pieces: Vec<_> = told.next().into_pieces().unwrap().collect();
        let mut close = Box::pin(connection.close());
        peer.expect_reset();
        assert!(poll(&mut close).is_pending());
        pieces.truncate(0);
        wait(close);
        drop(listener);
        driver.unload();
    });
}

/// Without pieces nothing is aborted: a connection that has ended in good order is closed without a reset,
/// also with data that is retained.
///
/// Prevents: CLOSE-01
#[test]
fn a_connection_without_pieces_ends_in_good_order() {
    for_each_mode(|_| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (mut connection, peer, told) = retaining(&listener);
        peer.send(b"kept").half_close();
        let retained = told.next();
        wait(connection.shutdown()).unwrap();
        assert_eq!(peer.end(), End::Graceful(Vec::new()));
        // Pieces that are gone again leave no abort behind.
        let pieces = retained.into_pieces().unwrap();
        drop(pieces);
        wait(connection.close());
        drop(listener);
        driver.unload();
    });
}

/// Without memory the data comes back, and can be read and given back.
///
/// Prevents: RCVE-20, CLOSE-14
#[test]
fn pieces_need_memory_and_the_data_comes_back_without() {
    let sim = Sim::new();
    sim.run(|sim| {
        let driver = Driver::start();
        let listener = driver.listen();
        let (connection, peer, told) = retaining(&listener);
        // Those that the client has kept are taken.
        let mut taken = Vec::new();
        let mut refused = 0;
        for _ in 0..40 {
            peer.send(b"kept");
            let retained = told.next();
            sim.kernel().faults().fail_from(1);
            let pieces = retained.into_pieces();
            sim.kernel().faults().clear();
            match pieces {
                Ok(pieces) => taken.extend(pieces),
                Err((error, data)) => {
                    assert!(error.is_out_of_memory());
                    assert_eq!(data.len(), 4);
                    refused += 1;
                }
            }
        }
        assert!(refused > 0);
        drop(taken);
        wait(connection.close());
        drop(listener);
        driver.unload();
    });
}

/// Pieces of sends that nobody waits for are given back outside of the completion routines.
///
/// Prevents: IRP-14
#[test]
fn pieces_of_detached_sends_are_not_released_in_completion_routines() {
    let late = Sim::builder().completion(Completion::PendLate);
    late.provider(|config| config.completion_depth = 0).build().run(|sim| {
        sim.forbid_advice();
        let driver = Driver::start();
        let listener = driver.listen();
        let (from, sender, told) = retaining(&listener);
        let (to, receiver) = connected(&listener);
        let (receiving, mut to) = to.into_split();
        for round in 0..8 {
            sender.send(&[round; 4]);
            let mut left = 4;
            while left > 0 {
                for piece in told.next().into_pieces().unwrap() {
                    left -= piece.len();
                    // Parts of pieces are given back as pieces are.
                    let all = 0..piece.len();
                    to.post(Slice::of(piece, all).unwrap()).detach();
                }
            }
            assert_eq!(receiver.receive(4), [round; 4]);
        }
        drop((from, receiving, to, listener));
        driver.unload();
    });
}

/// Pieces of datagrams whose send is dropped are given back outside of the completion routines, too.
///
/// Prevents: IRP-14
#[test]
fn pieces_of_dropped_datagrams_are_not_released_in_completion_routines() {
    let late = Sim::builder().completion(Completion::PendLate);
    late.provider(|config| config.completion_depth = 0).build().run(|sim| {
        sim.forbid_advice();
        let driver = Driver::start();
        let listener = driver.listen();
        let (from, sender, told) = retaining(&listener);
        let socket = wait(driver.provider.datagram().bind(localhost())).unwrap();
        for round in 0..8 {
            sender.send(&[round; 4]);
            let mut left = 4;
            while left > 0 {
                for piece in told.next().into_pieces().unwrap() {
                    left -= piece.len();
                    let mut sending = Box::pin(socket.send_to(piece, socket.local_addr()));
                    let _ = poll(&mut sending);
                    drop(sending);
                }
            }
        }
        drop((from, socket, listener));
        driver.unload();
    });
}
