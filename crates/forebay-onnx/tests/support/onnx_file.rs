//! Writes small ONNX files: just enough of the protobuf encoding for a look-up table as an encoder.

const VARINT: u64 = 0;
const BYTES: u64 = 2;
const INT64: u64 = 7;
const FLOAT: u64 = 1;

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn int(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3 | VARINT);
        self.varint(value);
        self
    }

    fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Self {
        self.varint(field << 3 | BYTES);
        self.varint(value.as_ref().len() as u64);
        self.0.extend(value.as_ref());
        self
    }

    fn message(self, field: u64, value: Self) -> Self {
        self.bytes(field, value.0)
    }

    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

/// What a test wants of the file.
pub(crate) struct LookUp<'a> {
    /// The table, `[vocab, hidden]` row-major.
    pub(crate) table: &'a [f32],
    pub(crate) hidden: usize,
    pub(crate) inputs: &'a [&'a str],
    pub(crate) output: &'a str,
    /// Whether the output is the mean over tokens, `[rows, hidden]`, instead of the states.
    pub(crate) pooled: bool,
    /// Whether the table is said to lie in another file.
    pub(crate) external: bool,
}

/// The states are the table's rows for `input_ids`.
pub(crate) fn look_up(wanted: &LookUp<'_>) -> Vec<u8> {
    let rows = wanted.table.len() / wanted.hidden;
    let mut table = Message::default()
        .int(1, rows as u64)
        .int(1, wanted.hidden as u64)
        .int(2, FLOAT)
        .bytes(8, "table");
    table = if wanted.external {
        let location = Message::default().bytes(1, "location").bytes(2, "../../secret");
        table.message(13, location).int(14, 1)
    } else {
        let bytes: Vec<u8> = wanted.table.iter().flat_map(|value| value.to_le_bytes()).collect();
        table.bytes(9, bytes)
    };
    let states = if wanted.pooled { "states" } else { wanted.output };
    let gather = node("Gather", &["table", "input_ids"], states);
    let mut graph = Message::default().message(1, gather).bytes(2, "look_up").message(5, table);
    if wanted.pooled {
        let axis = Message::default().int(1, 1).int(2, INT64).bytes(8, "axis");
        let axis = axis.bytes(9, 1_i64.to_le_bytes());
        let keep = Message::default().bytes(1, "keepdims").int(3, 0).int(20, 2);
        let mean = node("ReduceMean", &["states", "axis"], wanted.output).message(5, keep);
        graph = graph.message(1, mean).message(5, axis);
    }
    for input in wanted.inputs {
        graph = graph.message(11, value(input, INT64, &[None, None]));
    }
    let hidden = Some(wanted.hidden);
    let dimensions: &[_] = if wanted.pooled { &[None, hidden] } else { &[None, None, hidden] };
    graph = graph.message(12, value(wanted.output, FLOAT, dimensions));
    let opset = Message::default().bytes(1, "").int(2, 18);
    Message::default().int(1, 9).message(7, graph).message(8, opset).0
}

fn node(operator: &str, inputs: &[&str], output: &str) -> Message {
    let node = inputs.iter().fold(Message::default(), |node, input| node.bytes(1, input));
    node.bytes(2, output).bytes(3, operator).bytes(4, operator)
}

fn value(name: &str, element: u64, dimensions: &[Option<usize>]) -> Message {
    let shape = dimensions.iter().fold(Message::default(), |shape, dimension| {
        let dimension = match dimension {
            Some(size) => Message::default().int(1, *size as u64),
            None => Message::default().bytes(2, "any"),
        };
        shape.message(1, dimension)
    });
    let tensor = Message::default().int(1, element).message(2, shape);
    Message::default().bytes(1, name).message(2, Message::default().message(1, tensor))
}
