"""Throwaway database servers, started as ordinary processes."""
