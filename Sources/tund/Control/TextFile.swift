internal import Glibc

/// A text file of the kernel's, or of /etc. A file below /proc/net shows the network namespace it was opened in.
@safe
final class TextFile {
    private let file: UnsafeMutablePointer<FILE>?

    init(_ path: String) { unsafe file = fopen(path, "re") }

    deinit { if let file = unsafe file { unsafe fclose(file) } }

    /// What it says now, line by line, without their ends; none if the file cannot be read.
    func lines() -> [String] {
        guard let file = unsafe file else { return [] }
        unsafe rewind(file)
        var lines: [String] = []
        var line: UnsafeMutablePointer<CChar>?
        var room = 0
        defer { unsafe free(line) }
        while true {
            let count = unsafe getline(&line, &room, file)
            guard count > 0, let start = unsafe line else { return lines }
            let bytes = unsafe UnsafeRawBufferPointer(start: start, count: count)
            let text = unsafe String(decoding: bytes, as: UTF8.self)
            lines.append(text.hasSuffix("\n") ? String(text.dropLast()) : text)
        }
    }

    static func lines(of path: String) -> [String] { TextFile(path).lines() }
}
