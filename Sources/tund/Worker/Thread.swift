internal import CLinux
internal import Glibc
internal import RingIO

/// A thread of the kernel's, which inherits the capabilities and the signal mask of the one that starts it.
enum Thread {
    static func start(_ body: @escaping () -> Void) throws(SystemError) -> pthread_t {
        var thread = pthread_t()
        let main: @convention(c) (UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? = { context in
            unsafe Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
            return nil
        }
        let context = unsafe Unmanaged.passRetained(Body(body)).toOpaque()
        let code = unsafe pthread_create(&thread, nil, main, context)
        if code != 0 {
            unsafe Unmanaged<Body>.fromOpaque(context).release()
            throw SystemError("pthread_create", code: code)
        }
        return thread
    }

    private final class Body {
        let run: () -> Void
        init(_ run: @escaping () -> Void) { self.run = run }
    }
}
