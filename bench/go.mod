// The bench is a module of its own, so that what it is compared with never
// becomes a dependency of the library.
module github.com/go-privsep/sallyport/bench

go 1.26.0

replace github.com/go-privsep/sallyport => ../

require github.com/go-privsep/sallyport v0.0.0-00010101000000-000000000000

require (
	github.com/landlock-lsm/go-landlock v0.11.0 // indirect
	github.com/vmihailenco/msgpack/v5 v5.4.1 // indirect
	github.com/vmihailenco/tagparser/v2 v2.0.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
	kernel.org/pub/linux/libs/security/libcap/psx v1.2.78 // indirect
)
