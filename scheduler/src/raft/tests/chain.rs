use crate::raft::{ApplyError, StateMachine};

/// A state that tells every order of the same entries apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub cluster: String,
    pub entries: u64,
    pub hash: u64,
}

impl StateMachine for Chain {
    /// How many entries there are with this one.
    type Outcome = u64;

    fn apply(&mut self, index: u64, payload: &[u8]) -> Result<u64, ApplyError> {
        if payload == b"poison" {
            return Err(ApplyError("an unknown command".into()));
        }
        for byte in index.to_le_bytes().iter().chain(payload) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        self.entries += 1;
        Ok(self.entries)
    }

    fn snapshot(&self) -> Vec<u8> {
        format!("{} {} {}", self.cluster, self.entries, self.hash).into_bytes()
    }

    fn restore(cluster: &str, bytes: &[u8]) -> Result<Self, ApplyError> {
        let text = std::str::from_utf8(bytes).map_err(|e| ApplyError(e.to_string()))?;
        let fields: Vec<&str> = text.split(' ').collect();
        match fields[..] {
            [of, entries, hash] if of == cluster => Ok(Chain {
                cluster: of.to_owned(),
                entries: entries.parse().map_err(|_| ApplyError("no count".into()))?,
                hash: hash.parse().map_err(|_| ApplyError("no hash".into()))?,
            }),
            _ => Err(ApplyError(format!("`{text}` is no chain of {cluster}"))),
        }
    }

    fn empty(cluster: &str) -> Self {
        Chain { cluster: cluster.to_owned(), entries: 0, hash: 0xcbf2_9ce4_8422_2325 }
    }
}
