//! Messages between host, worker and device monitor, each as both ends read it.

use forebay_protocol::{
    DESCRIPTOR_BYTES, Descriptor, DescriptorKind, Hello, MonitorCommand, MonitorReport,
    MonitorRequest, ProbeReport, ProbeRequest, StartReply,
};

/// How a descriptor begins its words: the magic stands behind two numbers of eight bytes.
const MAGIC_AT: usize = 16;

/// Reads the bytes as every message there is. What is accepted must come back from its own encoding.
pub fn worker_messages(data: &[u8]) {
    descriptor(data);
    // With a sound frame around it: sums keep chance from ever getting past them.
    if let Some(packet) = data.first_chunk::<DESCRIPTOR_BYTES>() {
        let mut packet = *packet;
        packet[MAGIC_AT..MAGIC_AT + 4].copy_from_slice(b"FBAY");
        let sum = crc32fast::hash(&packet[..DESCRIPTOR_BYTES - 4]);
        packet[DESCRIPTOR_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        descriptor(&packet);
    }
    Hello::version_of(data).ok();
    if let Ok(hello) = Hello::decode(data)
        && let Ok(packet) = hello.encode()
    {
        assert_eq!(Hello::decode(&packet).ok(), Some(hello));
    }
    if let Ok(reply) = StartReply::decode(data)
        && let Ok(packet) = reply.encode()
    {
        assert_eq!(StartReply::decode(&packet).ok(), Some(reply));
    }
    if let Ok(report) = MonitorReport::decode(data)
        && let Ok(line) = report.encode()
    {
        assert_eq!(MonitorReport::decode(line.as_bytes()).ok(), Some(report));
    }
    if let Ok(report) = ProbeReport::decode(data)
        && let Ok(line) = report.encode()
    {
        assert_eq!(ProbeReport::decode(line.as_bytes()).ok(), Some(report));
    }
    MonitorCommand::decode(data).ok();
    if let Ok(text) = std::str::from_utf8(data) {
        MonitorRequest::decode(text).ok();
        ProbeRequest::decode(text).ok();
    }
}

fn descriptor(packet: &[u8]) {
    if let Ok(descriptor) = Descriptor::decode(packet) {
        assert_eq!(descriptor.encode(), packet, "{descriptor:?}");
        let is_fault = descriptor.kind == DescriptorKind::Fault;
        assert_eq!(descriptor.fault().is_some(), is_fault, "{descriptor:?}");
    }
}
