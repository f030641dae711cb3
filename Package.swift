// swift-tools-version: 6.2
import PackageDescription

/// What every target of ours is compiled with: warnings are errors, unsafe code says so, existentials and imports are explicit.
let strict: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableExperimentalFeature("Lifetimes"),
]

/// The packet path crosses module borders: without this flag each accessor of TunnelCore would be a call.
let packetPath = strict + [.unsafeFlags(["-cross-module-optimization"], .when(configuration: .release))]

let package = Package(
    name: "tund",
    products: [.executable(name: "tund", targets: ["tund"])],
    dependencies: [
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.5.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
    ],
    targets: [
        // C headers only: no logic of ours is written in C.
        .systemLibrary(name: "CLiburing", pkgConfig: "liburing", providers: [.apt(["liburing-dev"])]),
        .systemLibrary(name: "CNetlink", pkgConfig: "libnl-route-3.0", providers: [.apt(["libnl-route-3-dev"])]),
        .systemLibrary(name: "CLinux", providers: [.apt(["libcap-dev"])]),

        .target(name: "TunnelCore", swiftSettings: packetPath),
        .target(name: "RingIO", dependencies: ["CLiburing", "CLinux"], swiftSettings: packetPath),
        .executableTarget(
            name: "tund",
            dependencies: [
                "TunnelCore", "RingIO", "CLinux", "CNetlink",
                .product(name: "ArgumentParser", package: "swift-argument-parser"),
                .product(name: "Logging", package: "swift-log"),
            ],
            swiftSettings: packetPath
        ),

        // `make bench-micro`
        .target(name: "CountingAllocator", path: "bench/micro/CountingAllocator"),
        .executableTarget(
            name: "bench-micro", dependencies: ["TunnelCore", "CountingAllocator"], path: "bench/micro/BenchMicro",
            swiftSettings: packetPath, linkerSettings: [.linkedLibrary("m")]
        ),

        .testTarget(name: "TunnelCoreTests", dependencies: ["TunnelCore"], swiftSettings: strict),
        .testTarget(name: "RingIOTests", dependencies: ["RingIO", "CLinux", "CLiburing"], swiftSettings: strict),
        .testTarget(
            name: "TundTests",
            dependencies: ["tund", "TunnelCore", "RingIO", .product(name: "ArgumentParser", package: "swift-argument-parser")],
            swiftSettings: strict),
    ]
)
