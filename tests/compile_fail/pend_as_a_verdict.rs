//! Prevents: ICMP-10

fn decide(token: wsk::InspectToken) {
    drop(token.decide(wsk::Verdict::Pend));
}

fn main() {}
