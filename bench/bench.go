// Package bench holds the benchmarks of sallyport against its peers: a call
// against a C ping-pong, starting a worker against a bare re-exec, and, in
// cmd/ftpbench, the FTP server against vsftpd. It has no code of its own.
//
// The peers are measured in the same run, in turn with what they are peers of,
// for only ratios of one run say something.
package bench
