//! Trickled candidates: `application/trickle-ice-sdpfrag` (RFC 8840 §9).

use super::WhipError;
use super::offer::{Candidate, IceCredentials, MAX_CANDIDATES};

/// A handful of candidates is under 2 KiB.
const MAX_FRAGMENT: usize = 16 << 10;

/// The usable candidates of a fragment that belongs to the ICE session of `remote`.
pub fn candidates(fragment: &str, remote: &IceCredentials) -> Result<Vec<Candidate>, WhipError> {
    if fragment.len() > MAX_FRAGMENT {
        return Err(WhipError::Malformed("the fragment is too long".into()));
    }
    let mut found = Vec::new();
    let (mut other_ufrag, mut other_pwd) = (false, false);
    for line in fragment.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return Err(WhipError::Malformed("a line is not of the form x=value".into()));
        };
        if kind != "a" {
            continue;
        }
        match value.split_once(':').unwrap_or((value, "")) {
            ("ice-ufrag", ufrag) => other_ufrag |= ufrag != remote.ufrag,
            ("ice-pwd", pwd) => other_pwd |= pwd != remote.pwd,
            ("candidate", _) if found.len() < MAX_CANDIDATES => found.extend(Candidate::parse(value)),
            // a=mid, a=group, a=end-of-candidates say nothing new: there is one transport.
            _ => {}
        }
    }
    match (other_ufrag, other_pwd) {
        // RFC 9725 §4.3.3: new credentials ask for a restart, which a server that only trickles refuses with 422.
        (true, true) => Err(WhipError::Unacceptable("ICE restarts are not supported; publish again".into())),
        (true, false) | (false, true) => Err(WhipError::Malformed("the fragment is of another ICE session".into())),
        (false, false) => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote() -> IceCredentials {
        IceCredentials { ufrag: "EsAw".into(), pwd: "P2uYro0UCOQ4zxjKXaWCBui1".into() }
    }

    #[test]
    fn browsers_fragments_give_their_usable_candidates() {
        let text = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n\
                    a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw\r\n\
                    a=candidate:3471623853 1 udp 2122194687 4f00.local 61765 typ host\r\n\
                    a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n\
                    a=end-of-candidates\r\n";
        let found = candidates(text, &remote()).unwrap_or_default();
        assert_eq!(found.iter().map(|c| c.address.to_string()).collect::<Vec<_>>(), ["192.0.2.1:61764"]);
        assert_eq!(candidates("", &remote()), Ok(vec![]));
    }

    #[test]
    fn other_sessions_and_restarts_are_told_apart() {
        assert!(matches!(candidates("a=ice-ufrag:other\r\n", &remote()), Err(WhipError::Malformed(_))));
        assert!(matches!(candidates("{\"candidate\":\"\"}", &remote()), Err(WhipError::Malformed(_))));
        let restart = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n";
        assert!(matches!(candidates(restart, &remote()), Err(WhipError::Unacceptable(_))));
    }
}
