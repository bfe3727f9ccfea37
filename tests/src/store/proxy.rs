//! HTTP on a bad day. One request per connection: that of the client is read, and then it is refused, passed on whole, slowly, or in part.

use crate::chaos::dice::Dice;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How often what happens, of a thousand requests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// 503, and the store has not seen the request.
    pub unavailable: u64,
    /// The answer breaks off with a reset, in its body if it has one.
    pub reset: u64,
    /// The answer ends too early, in good order.
    pub truncated: u64,
    /// The answer comes in small pieces.
    pub slow: u64,
}

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Told {
    pub requests: AtomicU64,
    pub unavailable: AtomicU64,
    pub reset: AtomicU64,
    pub truncated: AtomicU64,
    pub slow: AtomicU64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Reset,
    Truncated,
    Slow,
}

pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    target: SocketAddr,
    faults: Mutex<Faults>,
    dice: Mutex<Dice>,
    told: Told,
}

impl Proxy {
    /// Listens until the process ends.
    pub fn before(target: SocketAddr, faults: Faults, seed: u64) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Shared { target, faults: Mutex::new(faults), dice: Mutex::new(Dice::new(seed)), told: Told::default() };
        let shared = Arc::new(shared);
        let serving = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = serving.clone();
                std::thread::spawn(move || shared.serve(&client));
            }
        });
        Proxy { address, shared }
    }

    pub fn set(&self, faults: Faults) {
        *self.shared.faults.lock().unwrap_or_else(|e| e.into_inner()) = faults;
    }

    pub fn told(&self) -> &Told {
        &self.shared.told
    }
}

impl Shared {
    fn serve(&self, client: &TcpStream) {
        let _ = (client.set_nodelay(true), client.set_read_timeout(Some(Duration::from_secs(60))));
        let Some(request) = read_request(client) else { return };
        self.told.requests.fetch_add(1, Ordering::Relaxed);
        let fault = {
            let faults = *self.faults.lock().unwrap_or_else(|e| e.into_inner());
            let mut dice = self.dice.lock().unwrap_or_else(|e| e.into_inner());
            let drawn = dice.below(1000);
            let bounds = [
                (faults.unavailable, None, &self.told.unavailable),
                (faults.reset, Some(Fault::Reset), &self.told.reset),
                (faults.truncated, Some(Fault::Truncated), &self.told.truncated),
                (faults.slow, Some(Fault::Slow), &self.told.slow),
            ];
            let mut sum = 0;
            let happens = bounds.into_iter().find(|(permille, _, _)| {
                sum += permille;
                drawn < sum
            });
            happens.iter().for_each(|(_, _, count)| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            happens.map_or(Some(Fault::None), |(_, fault, _)| fault)
        };
        let Some(fault) = fault else {
            let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            let answer = format!("HTTP/1.1 503 Slow Down\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = (&mut &*client).write_all(answer.as_bytes());
            return;
        };
        let Ok(store) = TcpStream::connect(self.target) else { return };
        if (&mut &store).write_all(&request).is_ok() {
            pass_on(&store, client, fault);
        }
    }
}

/// Carries the answer back, or what the fault leaves of it.
fn pass_on(store: &TcpStream, client: &TcpStream, fault: Fault) {
    let mut answer = Vec::new();
    if (&mut &*store).read_to_end(&mut answer).is_err() {
        return;
    }
    let head = head_end(&answer).unwrap_or(answer.len());
    let half = head + (answer.len() - head) / 2;
    let mut out = client;
    match fault {
        Fault::None => drop(out.write_all(&answer)),
        Fault::Slow => {
            for piece in answer.chunks((answer.len() / 20).max(1024)) {
                std::thread::sleep(Duration::from_millis(10));
                if out.write_all(piece).is_err() {
                    return;
                }
            }
        }
        Fault::Truncated => {
            // An answer without a body cannot end too early, but for its head.
            let end = if half == answer.len() { head / 2 } else { half };
            let _ = out.write_all(&answer[..end]);
            let _ = client.shutdown(Shutdown::Write);
        }
        Fault::Reset => {
            let end = if half == answer.len() { head / 2 } else { half };
            let _ = out.write_all(&answer[..end]);
            // The next close of this socket sends a reset instead of a clean end.
            let _ = rustix::net::sockopt::set_socket_linger(client, Some(Duration::ZERO));
        }
    }
}

/// The request with its body, and the word that the connection ends with its answer.
fn read_request(client: &TcpStream) -> Option<Vec<u8>> {
    let mut read = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    let mut client = client;
    let head = loop {
        if let Some(head) = head_end(&read) {
            break head;
        }
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
        }
    };
    let text = String::from_utf8_lossy(&read[..head]).into_owned();
    let mut length = 0usize;
    let mut lines = Vec::new();
    for line in text.trim_end().split("\r\n") {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "connection" => continue,
            _ => {}
        }
        lines.push(line);
    }
    while read.len() < head + length {
        match client.read(&mut buffer) {
            Ok(0) | Err(_) => return None,
            Ok(n) => read.extend_from_slice(&buffer[..n]),
        }
    }
    let mut request = lines.join("\r\n").into_bytes();
    request.extend_from_slice(b"\r\nconnection: close\r\n\r\n");
    request.extend_from_slice(&read[head..head + length]);
    Some(request)
}

/// Behind the empty line that ends a head.
fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers each request with 1000 letters.
    fn letters() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let request = read_request(&stream).expect("a request");
                assert!(request.ends_with(b"connection: close\r\n\r\nbody"), "{}", String::from_utf8_lossy(&request));
                let _ = (&mut &stream).write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}", "x".repeat(1000)).as_bytes());
            }
        });
        address
    }

    fn ask(faults: Faults) -> (String, std::io::Result<usize>) {
        let proxy = Proxy::before(letters(), faults, 1);
        let mut stream = TcpStream::connect(proxy.address).expect("connected");
        stream.write_all(b"PUT / HTTP/1.1\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbody").expect("sent");
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        assert_eq!(proxy.told().requests.load(Ordering::Relaxed), 1);
        (String::from_utf8_lossy(&answer).into_owned(), read)
    }

    #[test]
    fn an_answer_comes_whole_slowly_cut_off_or_not_at_all() {
        let (whole, read) = ask(Faults::default());
        assert!(whole.starts_with("HTTP/1.1 200") && whole.matches('x').count() == 1000 && read.is_ok());
        let (slow, read) = ask(Faults { slow: 1000, ..Faults::default() });
        assert!(slow == whole && read.is_ok());
        let (refused, _) = ask(Faults { unavailable: 1000, ..Faults::default() });
        assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
        let (cut, read) = ask(Faults { truncated: 1000, ..Faults::default() });
        assert!(cut.matches('x').count() == 500 && read.is_ok());
        let (_, read) = ask(Faults { reset: 1000, ..Faults::default() });
        assert_eq!(read.expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    }
}
