package main

import "crypto"

// certificateVerify is a lawful request for a signature.
func certificateVerify() SignRequest {
	return SignRequest{Message: append([]byte(verifyPrefix), make([]byte, 32)...), Hash: uint8(crypto.SHA256)}
}

// serverKeyExchange is another.
func serverKeyExchange() SignRequest {
	m := make([]byte, 64, 100)
	m = append(m, 3, 0, 29, 32)
	return SignRequest{Message: append(m, make([]byte, 32)...), Hash: uint8(crypto.SHA256)}
}
