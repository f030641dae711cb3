@main struct Tund { static func main() {} }
