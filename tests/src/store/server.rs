//! `s3s-fs` in a thread of this process: a bucket is a directory, an object a file in it.

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc;

pub const ACCESS_KEY: &str = "raftwerk-test";
pub const SECRET_KEY: &str = "only-for-tests";

/// Serves until the process ends.
pub struct Server {
    pub address: SocketAddr,
    root: PathBuf,
}

impl Server {
    pub fn start(root: &Path) -> Server {
        std::fs::create_dir_all(root).expect("a directory for the store");
        let (sender, address) = mpsc::channel();
        let served = root.to_owned();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            runtime.block_on(serve(&served, &sender));
        });
        Server { address: address.recv().expect("the server listens"), root: root.to_owned() }
    }

    /// Makes a bucket; objects are files in the directory that it returns.
    pub fn bucket(&self, name: &str) -> PathBuf {
        let dir = self.root.join(name);
        std::fs::create_dir_all(&dir).expect("a bucket");
        dir
    }
}

async fn serve(root: &Path, told: &mpsc::Sender<SocketAddr>) {
    let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root).expect("a file system"));
    builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
    let service = builder.build();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    told.send(listener.local_addr().expect("an address")).expect("somebody waits");
    while let Ok((stream, _)) = listener.accept().await {
        let service = service.clone();
        tokio::spawn(async move {
            // What a client broke off is no concern of the server.
            let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
