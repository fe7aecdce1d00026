//! A line to a server on which the provider's script arrives changed: SCRIPT LOAD is understood, everything else passes
//! as it is.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use harness::resp::read_command;

/// What happens to the text of a script.
type Change = dyn Fn(&str) -> String + Send + Sync;

/// Forwards a port to a server; returns the address. The threads end with the connections.
pub fn line(port: u16, change: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let here = listener.local_addr().expect("it is bound").port();
    let change: Arc<Change> = Arc::new(change);
    thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", port))) else {
                continue;
            };
            let change = change.clone();
            thread::spawn(move || {
                // However it ends: the other side is told by its end of the line.
                let _ = forward(client, server, &*change);
            });
        }
    });
    format!("redis://127.0.0.1:{here}")
}

fn forward(client: TcpStream, server: TcpStream, change: &Change) -> io::Result<()> {
    let (mut answers, mut to_client) = (server.try_clone()?, client.try_clone()?);
    let back = thread::spawn(move || {
        let copied = io::copy(&mut answers, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
        copied
    });
    let (mut commands, mut to_server) = (BufReader::new(client), server);
    let mut copy = || -> io::Result<()> {
        loop {
            let mut words = read_command(&mut commands)?;
            if words.len() == 3 && words[0] == b"SCRIPT" && words[1] == b"LOAD" {
                words[2] = change(&String::from_utf8_lossy(&words[2])).into_bytes();
            }
            let mut command = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
                command.extend_from_slice(word);
                command.extend_from_slice(b"\r\n");
            }
            to_server.write_all(&command)?;
        }
    };
    let copied = copy();
    let _ = to_server.shutdown(Shutdown::Both);
    let _ = back.join();
    copied
}
