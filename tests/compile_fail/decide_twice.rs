//! Prevents: ICMP-04

fn decide(token: wsk::InspectToken) {
    drop(token.accept());
    drop(token.reject());
}

fn main() {}
