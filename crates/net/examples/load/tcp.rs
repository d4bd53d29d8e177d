//! A TCP Cubic flow of the kernel's beside ours. Its receiver tells how much arrived: what was written may still wait in
//! the sender's kernel.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::series::BySecond;

/// The receiver tells how much arrived this often.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// Accepts flows at the same address as the datagrams.
pub(crate) fn serve(bind: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(bind).with_context(|| format!("cannot listen at {bind}"))?;
    std::thread::spawn(move || {
        for flow in listener.incoming().flatten() {
            std::thread::spawn(move || discard(flow));
        }
    });
    Ok(())
}

fn discard(mut flow: TcpStream) -> std::io::Result<()> {
    let (mut buffer, mut all, mut told) = (vec![0; 64 * 1024], 0u64, Instant::now());
    loop {
        let bytes = flow.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(());
        }
        all += bytes as u64;
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            flow.write_all(&all.to_be_bytes())?;
        }
    }
}

/// A flow under way.
pub(crate) struct Flow {
    arrived: Arc<Mutex<BySecond>>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Flow {
    /// Sends as fast as it goes from one moment after `began` to another.
    pub(crate) fn start(to: SocketAddr, began: Instant, from: Duration, until: Duration) -> Self {
        let arrived = Arc::new(Mutex::new(BySecond::default()));
        let told = Arc::clone(&arrived);
        let work = move || {
            std::thread::sleep((began + from).saturating_duration_since(Instant::now()));
            let mut flow = TcpStream::connect(to).context("the TCP flow")?;
            rustix::net::sockopt::set_tcp_congestion(&flow, "cubic").context("TCP Cubic")?;
            let mut back = flow.try_clone()?;
            let listener = std::thread::spawn(move || {
                let (mut count, mut before) = ([0; 8], 0);
                while back.read_exact(&mut count).is_ok() {
                    let all = u64::from_be_bytes(count);
                    let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                    told.add(began.elapsed(), (all - before) as f64);
                    before = all;
                }
            });
            let piece = vec![7; 16 * 1024];
            while began.elapsed() < until {
                flow.write_all(&piece)?;
            }
            // What the kernel still holds is not to be sent.
            rustix::net::sockopt::set_socket_linger(&flow, Some(Duration::ZERO))?;
            flow.shutdown(std::net::Shutdown::Read)?;
            drop(flow);
            let _ = listener.join();
            Ok(())
        };
        Self { arrived, threads: vec![std::thread::spawn(work)] }
    }

    /// Bytes by the second, after the end.
    pub(crate) fn end(self) -> Result<BySecond> {
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("the TCP flow failed"))??;
        }
        Ok(self.arrived.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}
