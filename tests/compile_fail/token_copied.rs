//! Prevents: ICMP-04

fn copy(token: wsk::InspectToken) -> (wsk::InspectToken, wsk::InspectToken) {
    (token.clone(), token)
}

fn main() {}
