//! Which node of a cluster owns which keys. Pure: hashing and the reading of two answers.

use redis::Value;

use crate::{Error, ErrorKind, Result};

pub(super) const SLOTS: usize = 16384;

/// A node's address as the cluster announces it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Node {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Node {
    /// The node where there is only one, at any address.
    pub(super) fn the_only() -> Self {
        Self {
            host: String::new(),
            port: 0,
        }
    }

    /// From `host:port`, as redirections name nodes; an empty host means the one who redirects.
    pub(super) fn parse(text: &str, redirected_by: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Some(Self {
            host: match host {
                "" => redirected_by.host.clone(),
                host => host.to_owned(),
            },
            port: port.parse().ok()?,
        })
    }
}

impl std::fmt::Display for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.is_empty() {
            true => Ok(()),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The owner of each slot.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ownership {
    /// Each primary that owns at least one slot.
    pub(super) primaries: Vec<Node>,
    /// Index into `primaries` by slot.
    owners: Vec<Option<u16>>,
}

/// What a node says about the cluster as a whole; two nodes that say the same know the same owners.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    /// Rises with every failover and every slot that a new owner claims.
    pub(super) epoch: u64,
    /// How many primaries own slots.
    pub(super) size: usize,
}

impl Ownership {
    pub(super) fn owner(&self, slot: usize) -> Option<usize> {
        self.owners.get(slot).copied().flatten().map(usize::from)
    }

    /// Whether each slot has an owner: otherwise there are entries that no server can be asked to invalidate.
    pub(super) fn is_complete(&self) -> bool {
        self.owners.iter().all(Option::is_some)
    }

    /// From the answer to `CLUSTER SLOTS`; nodes that do not know their own name get that of the one asked.
    pub(super) fn read(answer: Value, asked: &Node) -> Result<Self> {
        let mut primaries: Vec<Node> = Vec::new();
        let mut owners = vec![None; SLOTS];
        for range in list(answer)? {
            let range = list(range)?;
            let [Value::Int(first), Value::Int(last), primary, ..] = &range[..] else {
                return Err(nonsense("a slot range without its primary"));
            };
            let (first, last) = (*first, *last);
            if first < 0 || last < first || last as usize >= SLOTS {
                return Err(nonsense("a slot range that cannot be"));
            }
            let node = read_node(primary, asked)?;
            let index = primaries
                .iter()
                .position(|other| *other == node)
                .unwrap_or_else(|| {
                    primaries.push(node);
                    primaries.len() - 1
                });
            let index = u16::try_from(index).map_err(|_| nonsense("more primaries than slots"))?;
            owners[first as usize..=last as usize].fill(Some(index));
        }
        Ok(Self { primaries, owners })
    }
}

impl View {
    /// From the answer to `CLUSTER INFO`.
    pub(super) fn read(answer: &Value) -> Result<Self> {
        let text = match answer {
            Value::BulkString(bytes) => String::from_utf8_lossy(bytes),
            Value::VerbatimString { text, .. } => text.as_str().into(),
            _ => return Err(nonsense("CLUSTER INFO without text")),
        };
        let field = |name: &str| -> Result<u64> {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(field, value)| (field == name).then(|| value.trim().parse().ok())?)
                .ok_or_else(|| nonsense(&format!("CLUSTER INFO without {name}")))
        };
        Ok(Self {
            epoch: field("cluster_current_epoch")?,
            size: field("cluster_size")? as usize,
        })
    }
}

/// The slot of a key: of its hash tag if it has one.
pub(crate) fn slot_of(key: &[u8]) -> usize {
    usize::from(crc16(hash_tag(key).unwrap_or(key))) % SLOTS
}

/// What is between the first `{` and the first `}` after it, unless that is nothing.
fn hash_tag(key: &[u8]) -> Option<&[u8]> {
    let open = key.iter().position(|byte| *byte == b'{')?;
    let rest = &key[open + 1..];
    let close = rest.iter().position(|byte| *byte == b'}')?;
    (close > 0).then(|| &rest[..close])
}

/// CRC-16/XMODEM, which is what Redis Cluster hashes with.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    })
}

const CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = (index as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = match crc & 0x8000 {
                0 => crc << 1,
                _ => (crc << 1) ^ 0x1021,
            };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

fn read_node(value: &Value, asked: &Node) -> Result<Node> {
    let Value::Array(parts) = value else {
        return Err(nonsense("a node that is not a list"));
    };
    let [host, Value::Int(port), ..] = &parts[..] else {
        return Err(nonsense("a node without host and port"));
    };
    let host = match host {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    };
    Ok(Node {
        host: match &host[..] {
            "" | "?" => asked.host.clone(),
            _ => host,
        },
        port: u16::try_from(*port).map_err(|_| nonsense("a port that cannot be"))?,
    })
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(nonsense("no list where slots were expected")),
    }
}

fn nonsense(what: &str) -> Error {
    Error::new(ErrorKind::Protocol, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(host: &str, port: u16) -> Node {
        Node {
            host: host.to_owned(),
            port,
        }
    }

    fn range(first: i64, last: i64, host: &str, port: i64) -> Value {
        let host = Value::BulkString(host.into());
        Value::Array(vec![
            Value::Int(first),
            Value::Int(last),
            Value::Array(vec![host, Value::Int(port), Value::BulkString("id".into())]),
        ])
    }

    #[test]
    fn slots_are_those_of_the_cluster_specification() {
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), 12182);
        assert_eq!(
            slot_of(b"{user1000}.following"),
            slot_of(b"{user1000}.followers")
        );
        assert_eq!(
            slot_of(b"foo{}{bar}"),
            usize::from(crc16(b"foo{}{bar}")) % SLOTS
        );
        assert_eq!(slot_of(b"foo{{bar}}zap"), slot_of(b"{bar"));
        assert_eq!(slot_of(b""), 0);
    }

    #[test]
    fn ownership_is_read_and_holes_are_seen() {
        let asked = node("10.0.0.9", 7000);
        let answer = Value::Array(vec![
            range(0, 8191, "", 7000),
            range(8192, 16383, "b", 7001),
        ]);
        let owners = Ownership::read(answer, &asked).unwrap();
        assert_eq!(owners.primaries, [node("10.0.0.9", 7000), node("b", 7001)]);
        assert_eq!((owners.owner(8191), owners.owner(8192)), (Some(0), Some(1)));
        assert!(owners.is_complete());

        let half = Value::Array(vec![range(0, 8191, "a", 7000)]);
        let half = Ownership::read(half, &asked).unwrap();
        assert!(!half.is_complete());
        assert_eq!(half.owner(9000), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        let asked = node("a", 1);
        for answer in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(5, 4, "a", 1)]),
            Value::Array(vec![range(0, 16384, "a", 1)]),
            Value::Array(vec![range(0, 1, "a", 70_000)]),
        ] {
            assert!(Ownership::read(answer, &asked).is_err());
        }
        assert!(View::read(&Value::BulkString("cluster_size:3\r\n".into())).is_err());
    }

    #[test]
    fn a_view_is_two_lines_of_cluster_info() {
        let text = "cluster_state:ok\r\ncluster_size:3\r\ncluster_current_epoch:6\r\n";
        let view = View::read(&Value::BulkString(text.into())).unwrap();
        assert_eq!(view, View { epoch: 6, size: 3 });
    }

    #[test]
    fn redirections_name_nodes() {
        let from = node("a", 1);
        assert_eq!(Node::parse("b:2", &from), Some(node("b", 2)));
        assert_eq!(Node::parse(":2", &from), Some(node("a", 2)));
        assert_eq!(Node::parse("::1:2", &from), Some(node("::1", 2)));
        assert_eq!(Node::parse("b", &from), None);
    }
}
