//! Shuffle data from one worker to another over loopback, against one stream of rustls with the same cipher suite: bytes in memory, encrypted, sent, read and decrypted,
//! and nothing else. The shuffle reads its blocks from files, finds them by partition and task, checks each, and writes them to a file again; so a second stream does
//! that too, with nothing between: its bytes come from a file, are checked where they arrive, and go to a file.

use crate::sample::{Sample, cpu_seconds};
use anyhow::Context;
use raftwerk_worker::shuffle_speed::{ShuffleShape, measure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, ServerName},
};
use std::{
    fs::File,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    sync::Arc,
    time::Instant,
};

/// Written and read at once, as a message of shuffle data is.
const PIECE: usize = 512 << 10;
/// Of the file that is written: as with partitions, whose files go when they are done with, the same memory holds what comes later.
const KEPT: u64 = 128 << 20;

pub fn run(runs: usize, mib: u64, block_kib: u64, lz4: bool) -> anyhow::Result<()> {
    anyhow::ensure!(runs > 0 && mib > 0 && block_kib > 0, "nothing to measure");
    let partitions = 8;
    let block_bytes = block_kib << 10;
    let tasks = ((mib << 20) / u64::from(partitions) / block_bytes).max(1);
    let shape = ShuffleShape { partitions, tasks, block_bytes };
    println!(
        "## {} MiB of shuffle data between two workers on loopback: {partitions} partitions of {tasks} blocks of {block_kib} KiB{}, {runs} turns",
        shape.bytes() >> 20,
        if lz4 { ", LZ4" } else { "" }
    );
    let home = tempfile::Builder::new().prefix("raftwerk-shuffle-").tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let used = || cpu_seconds(std::process::id());
    let (mut shuffle, mut stream, mut by_files) = (Vec::new(), Vec::new(), Vec::new());
    let (mut cpu_shuffle, mut cpu_stream, mut cpu_by_files) = (Vec::new(), Vec::new(), Vec::new());
    let mut suite = String::new();
    for _ in 0..runs {
        let dir = tempfile::tempdir_in(home.path())?;
        // Two in a row, and the second counts: the connection is there.
        let before = used();
        let took = runtime.block_on(measure(dir.path(), shape, lz4, 2))?;
        cpu_shuffle.push((used() - before) / 2.0);
        shuffle.push(shape.bytes() as f64 / took.last().context("a run")?.as_secs_f64() / 1e6);
        let before = used();
        let (seconds, negotiated) = one_stream(shape.bytes(), None)?;
        cpu_stream.push(used() - before);
        stream.push(shape.bytes() as f64 / seconds / 1e6);
        suite = negotiated;
        let (from, to) = files(dir.path(), shape.bytes())?;
        let before = used();
        by_files.push(shape.bytes() as f64 / one_stream(shape.bytes(), Some((from, to)))?.0 / 1e6);
        cpu_by_files.push(used() - before);
    }
    let median = |values: Vec<f64>| Sample::new(values).median();
    let (shuffle, stream, by_files) = (median(shuffle), median(stream), median(by_files));
    println!(
        "shuffle {shuffle:.0} MB/s ({:.2} CPU s, making the blocks included), one stream of rustls {stream:.0} MB/s ({:.2} CPU s), \
         one that reads a file, checks and writes a file {by_files:.0} MB/s ({:.2} CPU s), {suite}",
        median(cpu_shuffle),
        median(cpu_stream),
        median(cpu_by_files)
    );
    println!("of one stream: {:.2} (goal 0.8); of one from file to file: {:.2}", shuffle / stream, shuffle / by_files);
    Ok(())
}

/// So many bytes in a file, and one to write them to.
fn files(dir: &Path, bytes: u64) -> anyhow::Result<(File, File)> {
    let mut from = File::options().read(true).write(true).create_new(true).open(dir.join("from"))?;
    let piece: Vec<u8> = (0..PIECE).map(|at| b'a' + (at % 26) as u8).collect();
    let mut left = bytes;
    while left > 0 {
        let length = left.min(PIECE as u64) as usize;
        from.write_all(&piece[..length])?;
        left -= length as u64;
    }
    Ok((from, File::create_new(dir.join("to"))?))
}

/// Seconds for so many bytes from one thread to another, from memory and dropped or from the first file to the second, and the cipher suite.
fn one_stream(bytes: u64, files: Option<(File, File)>) -> anyhow::Result<(f64, String)> {
    let (from, to) = files.unzip();
    let own = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = [&rustls::version::TLS13];
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone())?;
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let server = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(&versions)?;
    let server = Arc::new(server.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key)?);
    let client = ClientConfig::builder_with_provider(provider).with_protocol_versions(&versions)?;
    let client = Arc::new(client.with_root_certificates(roots).with_no_client_auth());

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let sender = std::thread::spawn(move || -> anyhow::Result<()> {
        let (tcp, _) = listener.accept()?;
        tcp.set_nodelay(true)?;
        let mut stream = StreamOwned::new(ServerConnection::new(server)?, tcp);
        // Asks for the bytes, so that the handshake is over when the clock starts.
        stream.read_exact(&mut [0])?;
        let mut piece = vec![b'x'; PIECE];
        let mut left = bytes;
        while left > 0 {
            let length = left.min(PIECE as u64) as usize;
            if let Some(file) = &from {
                file.read_exact_at(&mut piece[..length], bytes - left)?;
            }
            stream.write_all(&piece[..length])?;
            left -= length as u64;
        }
        stream.flush()?;
        Ok(())
    });
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    let mut stream = StreamOwned::new(ClientConnection::new(client, ServerName::try_from("localhost")?)?, tcp);
    let began = Instant::now();
    stream.write_all(b"x")?;
    stream.flush()?;
    let (mut left, mut piece) = (bytes, vec![0; PIECE]);
    let mut sum = 0;
    while left > 0 {
        let mut filled = 0;
        while filled < piece.len().min(left as usize) {
            match stream.read(&mut piece[filled..])? {
                0 => anyhow::bail!("the stream ended {left} bytes early"),
                read => filled += read,
            }
        }
        if let Some(file) = &to {
            sum = crc32c::crc32c_append(sum, &piece[..filled]);
            file.write_all_at(&piece[..filled], (bytes - left) % KEPT)?;
        }
        left -= filled as u64;
    }
    std::hint::black_box(sum);
    let seconds = began.elapsed().as_secs_f64();
    let suite = stream.conn.negotiated_cipher_suite().map_or("no suite".to_owned(), |suite| format!("{:?}", suite.suite()));
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok((seconds, suite))
}
