internal import Glibc

/// Text files of the kernel's and of /etc.
enum ProcFile {
    /// Without their ends; none if the file cannot be read.
    static func lines(of path: String) -> [String] {
        guard let file = unsafe fopen(path, "re") else { return [] }
        defer { unsafe fclose(file) }
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
}
