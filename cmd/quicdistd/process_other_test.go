//go:build !linux

package main

const asKept = "kept"

func printKept() {}
