//! Broken networks in user space: every process is reached through a proxy that can hold back, delay, break and half-close connections.
//!
//! The proxy sees a TLS stream, in which a changed, repeated or missing byte ends the connection. So what goes wrong here goes wrong for
//! connections, as TCP shows it to a program: a cut is bytes that do not arrive (later they do, as TCP sends them again), a lost packet is
//! a pause of at least 200 ms (TCP's least time to send again), a reset is a reset, a half-open connection is one whose other end has
//! forgotten it. Messages come twice when somebody sends them again; the clients here do that on purpose.

use super::dice::Dice;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// A scheduler or worker by its place in the fleet.
pub type NodeId = usize;

/// Whoever is no node: command lines.
pub const CLIENTS: NodeId = usize::MAX;

/// How often a pump that has nothing to do looks whether its connection is to end.
const LOOK: Duration = Duration::from_millis(50);

/// The state of the network between any two, changed while connections run.
#[derive(Default)]
struct Weather {
    /// Bytes from the first do not arrive at the second.
    cut: BTreeSet<(NodeId, NodeId)>,
    /// Every piece of data from the first to the second takes so much longer.
    delay_ms: BTreeMap<(NodeId, NodeId), u64>,
    /// So many pieces in a thousand are lost and sent again.
    loss_permille: BTreeMap<(NodeId, NodeId), u64>,
    pids: BTreeMap<NodeId, u32>,
}

const OPEN: u8 = 0;
/// To be broken with a reset on both sides.
const RESET: u8 = 1;
/// The side that was dialled is gone; the other one is not told.
const HALF_OPEN: u8 = 2;

struct Connection {
    peer: Option<SocketAddr>,
    from: AtomicUsize,
    to: NodeId,
    state: AtomicU8,
}

impl Connection {
    fn from(&self) -> NodeId {
        self.from.load(Ordering::Relaxed)
    }
}

/// The proxies of all nodes.
#[derive(Clone)]
pub struct Proxies(Arc<Shared>);

struct Shared {
    weather: Mutex<Weather>,
    connections: Mutex<Vec<Arc<Connection>>>,
    dice: Mutex<Dice>,
    over: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

impl Proxies {
    pub fn new(dice: Dice) -> Proxies {
        Proxies(Arc::new(Shared {
            weather: Mutex::default(),
            connections: Mutex::default(),
            dice: Mutex::new(dice),
            over: AtomicBool::new(false),
        }))
    }

    /// Listens for a node; returns the address that others are to use.
    pub fn stand_before(&self, node: NodeId, target: SocketAddr) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let proxies = self.clone();
        std::thread::spawn(move || {
            for accepted in listener.incoming() {
                if proxies.0.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(accepted) = accepted else { continue };
                let proxies = proxies.clone();
                std::thread::spawn(move || proxies.serve(node, accepted, target));
            }
        });
        Ok(address)
    }

    /// Who has which process id, so that a connection's origin is known.
    pub fn runs_as(&self, node: NodeId, pid: u32) {
        lock(&self.0.weather).pids.insert(node, pid);
        // A process dials as soon as it runs, and is told of here when it is ready.
        let connections = lock(&self.0.connections).clone();
        for connection in connections.iter().filter(|c| c.from() == CLIENTS) {
            connection.from.store(connection.peer.map_or(CLIENTS, |peer| self.node_at(peer)), Ordering::Relaxed);
        }
    }

    /// Bytes from `from` do not arrive at `to` until [`Proxies::heal`].
    pub fn cut(&self, from: NodeId, to: NodeId) {
        lock(&self.0.weather).cut.insert((from, to));
    }

    pub fn delay(&self, from: NodeId, to: NodeId, ms: u64) {
        lock(&self.0.weather).delay_ms.insert((from, to), ms);
    }

    pub fn lose(&self, from: NodeId, to: NodeId, permille: u64) {
        lock(&self.0.weather).loss_permille.insert((from, to), permille);
    }

    /// Breaks every connection that `node` has; returns how many.
    pub fn reset(&self, node: NodeId) -> usize {
        self.mark(RESET, |c| c.from() == node || c.to == node)
    }

    /// Closes every connection into `node` at its end only.
    pub fn half_open(&self, node: NodeId) -> usize {
        self.mark(HALF_OPEN, |c| c.to == node)
    }

    fn mark(&self, state: u8, which: impl Fn(&Connection) -> bool) -> usize {
        let connections = lock(&self.0.connections);
        let found = connections.iter().filter(|c| which(c));
        found.map(|c| c.state.store(state, Ordering::Relaxed)).count()
    }

    /// Good weather everywhere. Connections that were half-open end now, as they would when somebody sends into them.
    pub fn heal(&self) {
        let mut weather = lock(&self.0.weather);
        weather.cut.clear();
        weather.delay_ms.clear();
        weather.loss_permille.clear();
        drop(weather);
        for connection in lock(&self.0.connections).iter() {
            let _ = connection.state.compare_exchange(HALF_OPEN, RESET, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Ends all connections; listeners end with the next one that comes.
    pub fn stop(&self) {
        self.0.over.store(true, Ordering::Relaxed);
    }

    fn serve(&self, to: NodeId, accepted: TcpStream, target: SocketAddr) {
        let peer = accepted.peer_addr().ok();
        let from = AtomicUsize::new(peer.map_or(CLIENTS, |peer| self.node_at(peer)));
        let Ok(dialled) = TcpStream::connect_timeout(&target, Duration::from_secs(5)) else {
            // Nobody listens there: as near to "connection refused" as one gets after accepting.
            break_off(&accepted);
            return;
        };
        let connection = Arc::new(Connection { peer, from, to, state: AtomicU8::new(OPEN) });
        lock(&self.0.connections).push(connection.clone());
        let (accepted, dialled) = (Arc::new(accepted), Arc::new(dialled));
        let forth = {
            let (proxies, connection, accepted, dialled) = (self.clone(), connection.clone(), accepted.clone(), dialled.clone());
            std::thread::spawn(move || proxies.pump(&connection, &accepted, &dialled, true))
        };
        self.pump(&connection, &dialled, &accepted, false);
        let _ = forth.join();
        lock(&self.0.connections).retain(|c| !Arc::ptr_eq(c, &connection));
    }

    /// Carries bytes one way until the connection ends.
    fn pump(&self, connection: &Connection, source: &TcpStream, sink: &TcpStream, forth: bool) {
        let _ = (source.set_nodelay(true), source.set_read_timeout(Some(LOOK)), sink.set_write_timeout(Some(Duration::from_secs(30))));
        let mut buffer = vec![0; 64 << 10];
        loop {
            let (from, to) = if forth { (connection.from(), connection.to) } else { (connection.to, connection.from()) };
            let state = connection.state.load(Ordering::Relaxed);
            if state == RESET || self.0.over.load(Ordering::Relaxed) {
                break_off(source);
                break_off(sink);
                return;
            }
            if state == HALF_OPEN {
                if forth {
                    let _ = sink.shutdown(Shutdown::Both);
                }
                std::thread::sleep(LOOK);
                continue;
            }
            // A cut takes effect before the next byte is taken, so that both ends see their buffers fill as with a real one.
            if lock(&self.0.weather).cut.contains(&(from, to)) {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            match (&mut &*source).read(&mut buffer) {
                // This proxy itself has closed that end.
                Ok(0) | Err(_) if connection.state.load(Ordering::Relaxed) == HALF_OPEN => {}
                Ok(0) => {
                    let _ = sink.shutdown(Shutdown::Write);
                    return;
                }
                Ok(read) => {
                    self.hold_back(connection, from, to);
                    if connection.state.load(Ordering::Relaxed) == OPEN && (&mut &*sink).write_all(&buffer[..read]).is_err() {
                        connection.state.store(RESET, Ordering::Relaxed);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {}
                Err(_) => connection.state.store(RESET, Ordering::Relaxed),
            }
        }
    }

    /// Delay, loss, and a cut that began meanwhile.
    fn hold_back(&self, connection: &Connection, from: NodeId, to: NodeId) {
        let (delay, loss) = {
            let weather = lock(&self.0.weather);
            let of = |map: &BTreeMap<(NodeId, NodeId), u64>| map.get(&(from, to)).copied().unwrap_or(0);
            (of(&weather.delay_ms), of(&weather.loss_permille))
        };
        let mut wait = delay;
        if loss > 0 {
            let mut dice = lock(&self.0.dice);
            let mut again = 200;
            while dice.below(1000) < loss && again < 2000 {
                wait += again;
                again *= 2;
            }
        }
        if wait > 0 {
            std::thread::sleep(Duration::from_millis(wait));
        }
        while connection.state.load(Ordering::Relaxed) == OPEN
            && !self.0.over.load(Ordering::Relaxed)
            && lock(&self.0.weather).cut.contains(&(from, to))
        {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Which node dialled from this address: the one whose process has the socket.
    fn node_at(&self, peer: SocketAddr) -> NodeId {
        let Some(inode) = socket_inode(peer.port()) else { return CLIENTS };
        let wanted = format!("socket:[{inode}]");
        let pids = lock(&self.0.weather).pids.clone();
        for (node, pid) in pids {
            let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
            if descriptors.flatten().any(|d| std::fs::read_link(d.path()).is_ok_and(|link| link.to_string_lossy() == wanted)) {
                return node;
            }
        }
        CLIENTS
    }
}

/// The next close of this socket sends a reset instead of a clean end.
fn break_off(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// Inode of the socket on this machine whose own port this is.
fn socket_inode(port: u16) -> Option<u64> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let own = format!(":{port:04X}");
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_whitespace();
        let local = columns.nth(1)?;
        // After the local address: remote address, state, queues, timer, retransmits, user, timeout, inode.
        let inode = columns.nth(7)?;
        local.ends_with(&own).then(|| inode.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that sends back what it gets, behind a proxy.
    fn echo() -> (Proxies, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let target = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut buffer = [0; 1024];
                    while let Ok(read @ 1..) = (&mut &stream).read(&mut buffer) {
                        let _ = (&mut &stream).write_all(&buffer[..read]);
                    }
                });
            }
        });
        let proxies = Proxies::new(Dice::new(1));
        let address = proxies.stand_before(0, target).expect("a proxy");
        (proxies, address)
    }

    fn ask(stream: &mut TcpStream, limit_ms: u64) -> std::io::Result<usize> {
        stream.set_read_timeout(Some(Duration::from_millis(limit_ms)))?;
        stream.write_all(b"ping")?;
        stream.read(&mut [0; 16])
    }

    #[test]
    fn a_cut_holds_bytes_back_and_lets_them_through_when_it_is_healed() {
        let (proxies, address) = echo();
        let mut stream = TcpStream::connect(address).expect("connected");
        assert_eq!(ask(&mut stream, 5000).expect("an answer"), 4);
        // One way is enough: the question arrives, the answer does not.
        proxies.cut(0, CLIENTS);
        assert!(ask(&mut stream, 300).is_err());
        proxies.heal();
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        assert_eq!(stream.read(&mut [0; 16]).expect("the late answer"), 4);
    }

    #[test]
    fn a_reset_is_an_error_and_not_an_end() {
        let (proxies, address) = echo();
        let mut stream = TcpStream::connect(address).expect("connected");
        assert_eq!(ask(&mut stream, 5000).expect("an answer"), 4);
        assert_eq!(proxies.reset(0), 1);
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let error = stream.read(&mut [0; 16]).expect_err("a reset");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_half_open_connection_is_silent_until_it_is_healed() {
        let (proxies, address) = echo();
        let mut stream = TcpStream::connect(address).expect("connected");
        assert_eq!(ask(&mut stream, 5000).expect("an answer"), 4);
        assert_eq!(proxies.half_open(0), 1);
        std::thread::sleep(3 * LOOK);
        let error = ask(&mut stream, 300).expect_err("silence");
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        proxies.heal();
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        assert!(stream.read(&mut [0; 16]).is_err());
    }

    #[test]
    fn delays_add_up() {
        let (proxies, address) = echo();
        let mut stream = TcpStream::connect(address).expect("connected");
        proxies.delay(CLIENTS, 0, 60);
        proxies.delay(0, CLIENTS, 60);
        let started = std::time::Instant::now();
        assert_eq!(ask(&mut stream, 5000).expect("an answer"), 4);
        assert!(started.elapsed() >= Duration::from_millis(120));
    }

    #[test]
    fn the_origin_of_a_connection_is_the_process_that_dialled() {
        let (proxies, address) = echo();
        proxies.runs_as(3, std::process::id());
        let mut stream = TcpStream::connect(address).expect("connected");
        assert_eq!(ask(&mut stream, 5000).expect("an answer"), 4);
        let known = || lock(&proxies.0.connections).iter().map(|c| (c.from(), c.to)).collect::<Vec<_>>();
        assert_eq!(known(), [(3, 0)]);
    }

    #[test]
    fn a_connection_that_was_there_before_its_process_was_known_is_known_with_it() {
        let (proxies, address) = echo();
        let mut stream = TcpStream::connect(address).expect("connected");
        assert_eq!(ask(&mut stream, 5000).expect("an answer"), 4);
        let known = || lock(&proxies.0.connections).iter().map(|c| (c.from(), c.to)).collect::<Vec<_>>();
        assert_eq!(known(), [(CLIENTS, 0)]);
        proxies.runs_as(3, std::process::id());
        assert_eq!(known(), [(3, 0)]);
    }
}
