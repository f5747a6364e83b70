//! Options that WSK passes on to the host's sockets.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use crate::transport::Tuning;

/// Times that all hosts accept; Windows accepts others, too.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(i16::MAX as u64);
/// Numbers of probes that all hosts accept.
const MOST: u32 = 127;

/// Sets an option of a host socket.
pub(super) fn apply(socket: &SockRef<'_>, tuning: &Tuning) -> io::Result<()> {
    match *tuning {
        Tuning::KeepAlive { on, idle, interval, count } => {
            let [idle, interval] = [idle, interval].map(|time| time.clamp(SHORTEST, LONGEST));
            let probes = TcpKeepalive::new().with_time(idle).with_interval(interval);
            // Windows has a separate option for the number of probes, which compatible hosts may not have.
            let probes = if cfg!(windows) { probes } else { probes.with_retries(count.clamp(1, MOST)) };
            // Setting the times enables the probes, so this must be last.
            socket.set_tcp_keepalive(&probes)?;
            socket.set_keepalive(on)
        }
        Tuning::SendBuffer(bytes) => socket.set_send_buffer_size(bytes),
        Tuning::TypeOfService(value) => socket.set_tos_v4(value),
        Tuning::TimeToLive(hops) => socket.set_ttl_v4(hops),
        Tuning::Hops(hops) => socket.set_unicast_hops_v6(hops),
        Tuning::GroupTimeToLive(hops) => socket.set_multicast_ttl_v4(hops),
        Tuning::GroupHops(hops) => socket.set_multicast_hops_v6(hops),
        Tuning::GroupLoop(on) => socket.set_multicast_loop_v4(on),
        Tuning::GroupLoopV6(on) => socket.set_multicast_loop_v6(on),
        Tuning::GroupInterface(interface) => socket.set_multicast_if_v4(&interface),
        Tuning::GroupInterfaceV6(interface) => socket.set_multicast_if_v6(interface),
        Tuning::Group { joined: true, group, interface } => socket.join_multicast_v4(&group, &interface),
        Tuning::Group { joined: false, group, interface } => socket.leave_multicast_v4(&group, &interface),
        Tuning::GroupV6 { joined: true, group, interface } => socket.join_multicast_v6(&group, interface),
        Tuning::GroupV6 { joined: false, group, interface } => socket.leave_multicast_v6(&group, interface),
    }
}
