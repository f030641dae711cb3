internal import ArgumentParser
internal import Glibc

/// The program's version; `--version` prints it.
let version = "0.1.0"

@main
struct Tund: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "tund",
        abstract: "IPv6 over IPv4 protocol 41 in userspace: 6rd, 6to4 and point-to-point tunnels like the kernel's sit.",
        discussion: """
            Exit codes: 0 success, or stopped by a signal; 1 something failed while running; 64 the command line is wrong.
            """,
        version: version,
        subcommands: [RunCommand.self, MapCommand.self])

    static func main() {
        ProcessSetup.openStandardDescriptors()
        if let problem = ProcessSetup.missingProc {
            Output.write("Error: \(problem)\n", to: STDERR_FILENO)
            Glibc.exit(1)
        }
        main(nil)
    }
}
