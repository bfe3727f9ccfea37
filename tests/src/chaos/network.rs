//! What lies between the processes: proxies in user space, or network namespaces of their own where the machine allows it.

use super::dice::Dice;
use super::namespaces::Namespaces;
use super::proxy::{NodeId, Proxies};
use std::collections::BTreeSet;
use std::net::TcpListener;

/// Below the range from which systems hand out ports by themselves, so that a process finds its port again after a restart.
const PORTS: (u64, u64) = (20_000, 32_000);

pub enum Network {
    Proxies { proxies: Proxies, dice: Dice, troubled: BTreeSet<NodeId> },
    Namespaces { namespaces: Namespaces, troubled: BTreeSet<NodeId> },
}

/// Where a process is to be.
pub struct Seat {
    pub listen: String,
    pub advertise: String,
    /// What starts it there.
    pub through: Vec<String>,
}

impl Network {
    pub fn proxies(dice: &mut Dice) -> Network {
        Network::Proxies { proxies: Proxies::new(dice.fork()), dice: dice.fork(), troubled: BTreeSet::new() }
    }

    /// Needs the rights to make network namespaces; the error says what is missing.
    pub fn namespaces(nodes: usize) -> Result<Network, String> {
        Ok(Network::Namespaces { namespaces: Namespaces::make(nodes)?, troubled: BTreeSet::new() })
    }

    pub fn seat(&mut self, node: NodeId) -> Seat {
        match self {
            Network::Proxies { proxies, dice, .. } => {
                let port = free_port(dice);
                let target = ([127, 0, 0, 1], port).into();
                let advertise = proxies.stand_before(node, target).expect("a proxy").to_string();
                Seat { listen: target.to_string(), advertise, through: Vec::new() }
            }
            Network::Namespaces { namespaces, .. } => {
                let address = format!("{}:7300", namespaces.address(node));
                Seat { listen: address.clone(), advertise: address, through: namespaces.entrance(node) }
            }
        }
    }

    pub fn runs_as(&self, node: NodeId, pid: u32) {
        if let Network::Proxies { proxies, .. } = self {
            proxies.runs_as(node, pid);
        }
    }

    /// Bytes from `from` do not arrive at `to`.
    pub fn cut(&mut self, from: NodeId, to: NodeId) {
        self.trouble(from);
        self.trouble(to);
        match self {
            Network::Proxies { proxies, .. } => proxies.cut(from, to),
            Network::Namespaces { namespaces, .. } => namespaces.cut(from, to),
        }
    }

    /// The proxies, which alone can delay, lose, reset and half-close; `None` in namespaces.
    pub fn fine(&mut self, node: NodeId) -> Option<&Proxies> {
        self.trouble(node);
        match self {
            Network::Proxies { proxies, .. } => Some(proxies),
            Network::Namespaces { .. } => None,
        }
    }

    pub fn is_troubled(&self, node: NodeId) -> bool {
        match self {
            Network::Proxies { troubled, .. } | Network::Namespaces { troubled, .. } => troubled.contains(&node),
        }
    }

    fn trouble(&mut self, node: NodeId) {
        match self {
            Network::Proxies { troubled, .. } | Network::Namespaces { troubled, .. } => troubled.insert(node),
        };
    }

    pub fn heal(&mut self) {
        match self {
            Network::Proxies { proxies, troubled, .. } => {
                proxies.heal();
                troubled.clear();
            }
            Network::Namespaces { namespaces, troubled } => {
                namespaces.heal();
                troubled.clear();
            }
        }
    }

    pub fn stop(&self) {
        if let Network::Proxies { proxies, .. } = self {
            proxies.stop();
        }
    }
}

fn free_port(dice: &mut Dice) -> u16 {
    loop {
        let port = dice.between(PORTS.0, PORTS.1) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
