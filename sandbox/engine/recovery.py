"""Clears what a killed engine leaves behind. (Filled in below.)"""
