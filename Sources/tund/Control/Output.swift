internal import Glibc
internal import Logging

/// Writing to standard output and standard error without ever being held up: a pipe whose reader is stuck must not keep the
/// tunnel from stopping, so what cannot be written soon is lost.
enum Output {
    /// Milliseconds to wait for a reader.
    private static let patience: Int32 = 200
    /// A pipe that is writable takes so much without blocking (PIPE_BUF).
    private static let piece = 4096

    static func write(_ text: String, to descriptor: Int32) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            var ready = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
            guard unsafe poll(&ready, 1, patience) == 1, ready.revents & Int16(POLLOUT) != 0 else { return }
            let written = unsafe rest.prefix(piece).withUnsafeBytes { unsafe Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written <= 0 { return }
            rest = rest.dropFirst(written)
        }
    }
}

/// Log lines on standard error: time, level, label, message.
struct StandardErrorLog: LogHandler {
    let label: String
    var logLevel = Logger.Level.info
    var metadata = Logger.Metadata()

    init(label: String) { self.label = label }

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    func log(event: LogEvent) {
        Output.write("\(Self.time()) \(event.level) \(label): \(event.message)\n", to: STDERR_FILENO)
    }

    /// Local time with its offset, as RFC 3339 writes it but for the colon.
    private static func time() -> String {
        var now = Glibc.time(nil)
        var fields = unsafe tm()
        unsafe localtime_r(&now, &fields)
        var text = [CChar](repeating: 0, count: 40)
        let length = unsafe strftime(&text, text.count, "%Y-%m-%dT%H:%M:%S%z", &fields)
        return String(decoding: text.prefix(length).map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}
